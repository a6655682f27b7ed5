import { connect } from 'node:net'

export interface WireAnswer {
  readonly status: number
  readonly head: string
  readonly body: string
  /** Everything that came, until the server closed. */
  readonly text: string
}

/** Sends exactly these bytes and reads until the server closes the connection; `connection: close` belongs into the text. */
export const exchange = (port: number, text: string | Buffer): Promise<WireAnswer> =>
  new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    const socket = connect(port, '127.0.0.1', () => socket.write(text))
    socket.on('data', (chunk) => chunks.push(chunk))
    socket.on('error', (error: Error & { code?: string }) => {
      // A server that refuses closes while we still write; what it said before counts.
      if (chunks.length === 0 && error.code !== 'ECONNRESET' && error.code !== 'EPIPE') reject(error)
    })
    socket.on('close', () => {
      const all = Buffer.concat(chunks).toString('utf8')
      const [head = '', ...rest] = all.split('\r\n\r\n')
      resolve({ status: Number(head.slice(9, 12)), head, body: rest.join('\r\n\r\n'), text: all })
    })
  })
