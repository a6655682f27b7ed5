/**
 * BullMQ's workers on Postgres, which ask again without a pause after most errors: none may eat a core while Postgres
 * is away, nor after it was cut off, when nobody would stop it any more.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createQueueBackend } from '../../src/queue/backend.ts'
import { createProducer } from '../../src/queue/enqueue.ts'
import { createWorkers } from '../../src/queue/workers.ts'
import type { Workers } from '../../src/queue/workers.ts'
import { createTelemetry } from '../../src/telemetry.ts'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'
import { newSecret } from '../queue/rig.ts'
import { startProxy } from './proxy.ts'
import type { TestProxy } from './proxy.ts'

const MEASURED_MS = 1_500
/** Of one core. An idle worker takes about 0.01; one that spins, 0.7 or the whole. */
const MOST = 0.3

describe('workers whose Postgres is away', () => {
  let database: TestDatabase
  let proxy: TestProxy
  let workers: Workers
  let producer: ReturnType<typeof createProducer>
  let begun: number
  let finish: () => void
  beforeEach(async () => {
    database = await createDatabase()
    proxy = await startProxy(new URL(database.url))
    const { log, metrics } = createTelemetry({ level: 'silent' })
    const secrets = newSecret()
    const finished = new Promise<void>((resolve) => { finish = resolve })
    begun = 0
    producer = createProducer({ backend: createQueueBackend({ redisUrl: null, databaseUrl: database.url, log }), secrets, log })
    workers = createWorkers({
      backend: createQueueBackend({ redisUrl: null, databaseUrl: proxy.url, log }),
      secrets,
      handlers: {
        interactive: async () => [],
        bulk: async () => undefined,
        route: async () => {
          begun += 1
          await finished
        },
        deliver: async () => {},
      },
      stopWithinMs: 300,
      metrics,
      log,
    })
    await producer.start()
    await workers.start()
    producer.wake('route', 'all')
    await expect.poll(() => begun, { timeout: 10_000 }).toBe(1)
  })
  afterEach(async () => {
    finish()
    await workers.stop()
    await producer.stop()
    proxy.close()
    await database.drop()
  })

  const busy = async (): Promise<number> => {
    const before = { cpu: process.cpuUsage(), ms: performance.now() }
    await expect.poll(() => performance.now() - before.ms, { timeout: MEASURED_MS * 10 }).toBeGreaterThan(MEASURED_MS)
    const { user, system } = process.cpuUsage(before.cpu)
    return (user + system) / 1_000 / (performance.now() - before.ms)
  }

  it('ask seldom while every connection is cut at once, and work when they stand again', async () => {
    proxy.set('reset')
    finish()
    const before = proxy.connections()
    expect(await busy()).toBeLessThan(MOST)
    expect(proxy.connections() - before).toBeLessThan(60)
    proxy.set('pass')
    producer.wake('route', 'all')
    await expect.poll(() => begun, { timeout: 20_000 }).toBeGreaterThan(1)
  })

  it('come to rest when they were cut off in the middle of a job', async () => {
    await workers.stop()
    finish()
    expect(await busy()).toBeLessThan(MOST)
  })

  it('come to rest when they were cut off with Postgres silent', async () => {
    proxy.set('hold')
    await workers.stop()
    finish()
    expect(await busy()).toBeLessThan(MOST)
  })
})
