/** A real DNS server over UDP on a free loopback port, whose answers are scripted by name. */
import { createSocket } from 'node:dgram'

/** Addresses (IPv4 or none), an error, or silence. */
export type NameAnswer = readonly string[] | 'NXDOMAIN' | 'SERVFAIL' | 'silence'

export interface NameServer {
  /** `address:port`, for a resolver. */
  readonly address: string
  readonly asked: string[]
  set(name: string, answer: NameAnswer): void
  close(): Promise<void>
}

const codes = { NXDOMAIN: 3, SERVFAIL: 2 } as const
const TYPE_A = 1

/** Name and type of the one question (RFC 1035 §4.1.2), and where it ends. */
const readQuestion = (query: Buffer): { name: string; type: number; end: number } => {
  const labels: string[] = []
  let at = 12
  for (let length = query[at] ?? 0; length > 0; length = query[at] ?? 0) {
    labels.push(query.toString('latin1', at + 1, at + 1 + length))
    at += length + 1
  }
  return { name: labels.join('.').toLowerCase(), type: query.readUInt16BE(at + 1), end: at + 5 }
}

const reply = (query: Buffer, end: number, code: number, addresses: readonly string[]): Buffer => {
  const header = Buffer.alloc(12)
  query.copy(header, 0, 0, 2)
  header.writeUInt16BE(0x8180 | code, 2)
  header.writeUInt16BE(1, 4)
  header.writeUInt16BE(addresses.length, 6)
  const records = addresses.map((address) =>
    Buffer.from([0xc0, 0x0c, 0, TYPE_A, 0, 1, 0, 0, 0, 0, 0, 4, ...address.split('.').map(Number)]))
  return Buffer.concat([header, query.subarray(12, end), ...records])
}

/** Names that are not set are NXDOMAIN. */
export const startNameServer = async (): Promise<NameServer> => {
  const answers = new Map<string, NameAnswer>()
  const asked: string[] = []
  const socket = createSocket('udp4')
  socket.on('message', (query, peer) => {
    const { name, type, end } = readQuestion(query)
    asked.push(name)
    const answer = answers.get(name) ?? 'NXDOMAIN'
    if (answer === 'silence') return
    const [code, addresses] = typeof answer === 'string' ? [codes[answer], []] : [0, type === TYPE_A ? answer : []]
    socket.send(reply(query, end, code, addresses), peer.port, peer.address)
  })
  await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve))
  return {
    address: `127.0.0.1:${socket.address().port}`,
    asked,
    set: (name, answer) => void answers.set(name, answer),
    close: () => new Promise((resolve) => socket.close(() => resolve())),
  }
}
