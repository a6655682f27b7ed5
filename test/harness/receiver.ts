/** A real HTTP(S) receiver whose answers are scripted, well-behaved and hostile, and which records what it gets. */
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'

export interface ReceivedRequest {
  readonly method: string
  readonly path: string
  readonly headers: IncomingMessage['headers']
  readonly body: string
  readonly atMs: number
}

/** Answers one request; `count` is how many came before it. */
export type Answering = (response: ServerResponse, request: ReceivedRequest, count: number) => void

export interface TestReceiver {
  readonly url: string
  readonly port: number
  readonly requests: ReceivedRequest[]
  /** Attempts being answered at this moment, and the most there ever were. */
  readonly inFlight: { now: number; most: number }
  /** Answers the next requests one by one; after them, `always` counts again. */
  script(...answers: Answering[]): void
  always(answer: Answering): void
  /** The logout tokens received, in order. */
  tokens(): string[]
  close(): Promise<void>
}

export const answer = (status: number, { body = '', headers = {}, afterMs = 0 }: { body?: string; headers?: Record<string, string>; afterMs?: number } = {}): Answering =>
  (response) => {
    const send = () => response.writeHead(status, headers).end(body)
    if (afterMs === 0) send()
    else setTimeout(send, afterMs)
  }

/** Never answers. */
export const hang: Answering = () => {}

/** Takes the request and cuts the connection. */
export const reset: Answering = (response) => void (response.socket as Socket | null)?.resetAndDestroy()

/** One byte of a header a time, for ever. */
export const dripHeaders: Answering = (response) => {
  const { socket } = response
  socket?.write('HTTP/1.1 200 OK\r\nx-slow: ')
  const timer = setInterval(() => socket?.write('a'), 20)
  socket?.on('close', () => clearInterval(timer))
  socket?.on('error', () => {})
}

/** A status at once, then one byte of the body a time, for ever. */
export const dripBody = (status: number): Answering => (response) => {
  response.writeHead(status)
  const timer = setInterval(() => response.write('b'), 20)
  response.on('close', () => clearInterval(timer))
}

/** A body without end, as fast as it is taken. `written` counts its bytes. */
export const endless = (status: number, written: { bytes: number }): Answering => (response) => {
  const chunk = Buffer.alloc(64 * 1_024, 'x')
  response.writeHead(status)
  const pour = (): void => {
    while (!response.destroyed) {
      written.bytes += chunk.length
      if (!response.write(chunk)) {
        response.once('drain', pour)
        return
      }
    }
  }
  pour()
}

/** Starts a receiver on a free loopback port. @param tls a key and a certificate in PEM, for https. */
export const startReceiver = async (tls: { key: string; cert: string } | null = null): Promise<TestReceiver> => {
  const requests: ReceivedRequest[] = []
  const inFlight = { now: 0, most: 0 }
  let scripted: Answering[] = []
  let otherwise: Answering = answer(200)

  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const received = {
        method: request.method ?? '', path: request.url ?? '', headers: request.headers,
        body: Buffer.concat(chunks).toString(), atMs: Date.now(),
      }
      const count = requests.push(received) - 1
      inFlight.now += 1
      inFlight.most = Math.max(inFlight.most, inFlight.now)
      response.on('close', () => { inFlight.now -= 1 })
      response.on('error', () => {})
      const next = scripted.shift() ?? otherwise
      next(response, received, count)
    })
  }
  const server = tls === null ? createServer(onRequest) : createTlsServer(tls, onRequest)
  server.on('tlsClientError', () => {})
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    url: `${tls === null ? 'http' : 'https'}://127.0.0.1:${port}/backchannel-logout`,
    port,
    requests,
    inFlight,
    script: (...answers) => { scripted = answers },
    always: (next) => { otherwise = next },
    tokens: () => requests.map(({ body }) => new URLSearchParams(body).get('logout_token') ?? ''),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}
