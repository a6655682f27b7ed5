/** Stands before a server on loopback and lets through, holds or cuts what passes. */
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'

/** `pass`; `hold`: connected but silent, both ways; `reset`: every connection is taken and cut. */
type Mode = 'pass' | 'hold' | 'reset'

export interface TestProxy {
  /** The target's URL with this proxy's address. */
  readonly url: string
  /** Connections taken so far. */
  connections(): number
  set(mode: Mode): void
  close(): void
}

export const startProxy = async (target: URL): Promise<TestProxy> => {
  const sockets = new Set<Socket>()
  let mode: Mode = 'pass'
  let connections = 0
  const server = createServer((here) => {
    connections += 1
    here.on('error', () => {})
    if (mode === 'reset') {
      here.destroy()
      return
    }
    const there = connect(Number(target.port), target.hostname)
    there.on('error', () => {})
    for (const [from, to] of [[here, there], [there, here]] as const) {
      sockets.add(from)
      from.on('data', (bytes) => {
        if (mode === 'pass') to.write(bytes)
      })
      from.on('close', () => {
        sockets.delete(from)
        to.destroy()
      })
    }
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = new URL(target)
  url.port = String((server.address() as AddressInfo).port)
  const cutAll = () => {
    for (const socket of sockets) socket.destroy()
  }
  return {
    url: url.href,
    connections: () => connections,
    set: (next) => {
      mode = next
      if (next === 'reset') cutAll()
    },
    close: () => {
      server.close()
      cutAll()
    },
  }
}
