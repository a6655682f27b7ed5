/** A Postgres that is there and does not answer: whether something was committed is then unknown, and never guessed. */
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'
import type { ServiceProcess } from '../harness/processes.ts'
import { redisMissing, startRedis } from '../harness/redis.ts'
import { startCluster } from './cluster.ts'
import type { Answer, Cluster } from './cluster.ts'
import { startProxy } from './proxy.ts'
import type { TestProxy } from './proxy.ts'

describe.each(['redis', 'postgres'] as const)('Postgres without an answer, queue on %s', (kind) => {
  describe.skipIf(kind === 'redis' && redisMissing)('', () => {
    let database: TestDatabase
    let proxy: TestProxy
    let cluster: Cluster
    let api: ServiceProcess
    beforeAll(async () => {
      database = await createDatabase()
      proxy = await startProxy(new URL(database.url))
      cluster = await startCluster({ database, redis: kind === 'redis' ? await startRedis() : null, settings: { DATABASE_URL: proxy.url, COMMIT_WAIT: '5000' } })
      ;[api] = await Promise.all([cluster.start('api'), cluster.start('worker')])
      await cluster.untilQueued(api)
    })
    afterAll(async () => {
      proxy.close()
      await cluster.stop()
      await database.drop()
    })

    const endAll = async (ids: readonly string[]): Promise<Map<string, Answer>> =>
      new Map(await Promise.all(ids.map(async (id) => [id, await cluster.end(api, id)] as const)))

    it('G1, G3: its reply to a commit lost: the answer is the committed event, which is not repeated', async () => {
      await cluster.untilQueued(api)
      const ids = await cluster.live(10)
      proxy.set('mute')
      const answers = endAll(ids)
      // On Postgres, the queue is mute too: only the process' own commit comes through.
      await vi.waitFor(async () => expect((await cluster.committed(ids)).size).toBe(ids.length), { timeout: 4_500, interval: 20 })
      proxy.set('reset')
      proxy.set('pass')
      await cluster.expectTruth(await answers)
      await cluster.untilSettled()
    })

    it('answers 504 when it stays silent, and the truth once it speaks', async () => {
      await cluster.untilQueued(api)
      const ids = await cluster.live(10)
      proxy.set('hold')
      const answers = await endAll(ids)
      for (const { status, ms } of answers.values()) {
        expect(status).toBeOneOf([503, 504])
        expect(ms).toBeLessThan(8_000)
      }
      expect(await cluster.committed(ids)).toEqual(new Map())
      expect(await cluster.readiness(api)).toMatchObject({ ready: false, postgres: 'away' })
      proxy.set('pass')
      await vi.waitFor(async () => expect(await cluster.readiness(api)).toMatchObject({ ready: true }), { timeout: 10_000, interval: 50 })
      await cluster.expectTruth(await endAll(ids))
    })

    it('answers 503 with Retry-After soon while it refuses connections because it is starting', async () => {
      await cluster.untilQueued(api)
      const ids = await cluster.live(10)
      proxy.set('starting')
      for (const { status, body, ms, headers } of (await endAll(ids)).values()) {
        expect({ status, code: body.code }).toEqual({ status: 503, code: 14 })
        expect(Number(headers.get('retry-after'))).toBeGreaterThan(0)
        expect(ms).toBeLessThan(5_000)
      }
      expect(await cluster.committed(ids)).toEqual(new Map())
      proxy.set('pass')
      await vi.waitFor(async () => expect(await cluster.readiness(api)).toMatchObject({ ready: true }), { timeout: 10_000, interval: 50 })
      await cluster.expectTruth(await endAll(ids))
    })
  })
})
