/**
 * A Postgres that drops the first connections of a process, as one does that is just starting or overloaded. BullMQ
 * remembers a failed first connection for good, and its workers then ask again without ever leaving the event loop.
 */
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { createQueueBackend } from '../../src/queue/backend.ts'
import { createProducer } from '../../src/queue/enqueue.ts'
import { createWorkers } from '../../src/queue/workers.ts'
import { createTelemetry } from '../../src/telemetry.ts'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'
import { newSecret } from './rig.ts'

let database: TestDatabase
beforeEach(async () => { database = await createDatabase() })
afterEach(() => database.drop())

/** Stands before Postgres and drops every connection until it is opened. */
const startGate = async (target: URL) => {
  let isOpen = false
  let dropped = 0
  const server = createServer((socket) => {
    socket.on('error', () => {})
    if (!isOpen) {
      dropped += 1
      socket.destroy()
      return
    }
    const through = connect(Number(target.port), target.hostname)
    through.on('error', () => socket.destroy())
    socket.pipe(through).pipe(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = new URL(target)
  url.port = String((server.address() as AddressInfo).port)
  return { url: url.href, dropped: () => dropped, open: () => void (isOpen = true), close: () => server.close() }
}

it('workers whose first connections fail work once there are connections', async () => {
  const gate = await startGate(new URL(database.url))
  const { log, metrics } = createTelemetry({ level: 'silent' })
  const secrets = newSecret()
  const workers = createWorkers({
    backend: createQueueBackend({ redisUrl: null, databaseUrl: gate.url, log }),
    secrets,
    handlers: { interactive: async () => [], bulk: async () => undefined, route: async () => void (routed += 1), deliver: async () => {} },
    metrics,
    log,
  })
  const producer = createProducer({ backend: createQueueBackend({ redisUrl: null, databaseUrl: database.url, log }), secrets, log })
  let routed = 0
  await workers.start()
  await producer.start()
  await expect.poll(gate.dropped, { timeout: 5_000 }).toBeGreaterThan(3)
  gate.open()
  producer.wake('route', 'all')
  await expect.poll(() => routed, { timeout: 10_000 }).toBeGreaterThan(0)
  await workers.stop()
  await producer.stop()
  gate.close()
})
