/** Stands before a server on loopback and lets through, holds or cuts what passes. */
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'

/**
 * `pass`; `hold`: connected but silent, both ways; `mute`: requests pass, answers are lost; `reset`: every connection is
 * taken and cut; `starting`: each is told what a Postgres says that is starting up.
 */
type Mode = 'pass' | 'hold' | 'mute' | 'reset' | 'starting'

export interface TestProxy {
  /** The target's URL with this proxy's address. */
  readonly url: string
  /** Connections taken so far. */
  connections(): number
  set(mode: Mode): void
  /** The connections that there are fall silent for ever, as when a peer vanishes; new ones pass. */
  orphan(): void
  close(): void
}

export const startProxy = async (target: URL): Promise<TestProxy> => {
  const sockets = new Set<Socket>()
  let era = 0
  let mode: Mode = 'pass'
  let connections = 0
  const server = createServer((here) => {
    connections += 1
    here.on('error', () => {})
    if (mode === 'reset') {
      here.destroy()
      return
    }
    if (mode === 'starting') {
      here.once('data', () => here.end(startingUp()))
      return
    }
    const mine = era
    const there = connect(Number(target.port), target.hostname)
    there.on('error', () => {})
    for (const [from, to] of [[here, there], [there, here]] as const) {
      sockets.add(from)
      from.on('data', (bytes) => {
        if (mine < era) return
        if (mode === 'pass' || (mode === 'mute' && from === here)) to.write(bytes)
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
      if (next === 'reset' || next === 'starting') cutAll()
    },
    orphan: () => { era += 1 },
    close: () => {
      server.close()
      cutAll()
    },
  }
}

/** ErrorResponse (PostgreSQL 55.7): FATAL 57P03. */
const startingUp = (): Buffer => {
  const fields = Buffer.from('SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0')
  const head = Buffer.alloc(5)
  head.write('E')
  head.writeInt32BE(fields.length + 4, 1)
  return Buffer.concat([head, fields])
}
