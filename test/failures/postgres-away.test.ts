/** Postgres wholly away, under both homes of the queue. Fault F21. */
import { readFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import type { ServiceProcess } from '../harness/processes.ts'
import { redisMissing, startRedis } from '../harness/redis.ts'
import { startCluster } from './cluster.ts'
import type { Answer, Cluster } from './cluster.ts'
import { startLoad } from './load.ts'
import { startOwnPostgres } from './own-postgres.ts'
import type { OwnPostgres } from './own-postgres.ts'

describe.each(['redis', 'postgres'] as const)('Postgres away, queue on %s', (kind) => {
  describe.skipIf(kind === 'redis' && redisMissing)('', () => {
    let postgres: OwnPostgres
    let cluster: Cluster
    let api: ServiceProcess
    let worker: ServiceProcess
    beforeAll(async () => {
      postgres = await startOwnPostgres()
      cluster = await startCluster({ database: postgres.database, redis: kind === 'redis' ? await startRedis() : null })
      ;[api, worker] = await Promise.all([cluster.start('api'), cluster.start('worker')])
      await cluster.untilQueued(api)
    })
    afterAll(async () => {
      await cluster.stop()
      await postgres.stop()
    })

    it('answers 503 with Retry-After in time, says so in readyz, and recovers by itself with the truth', async () => {
      const ids = await cluster.live(400)
      const load = startLoad({ ids, everyMs: 40, ask: (id) => cluster.end(api, id) })
      await load.untilAnswered(10)
      await postgres.crash()
      const cpu = { seconds: await cpuSecondsOf(worker.pid), sinceMs: performance.now() }
      await load.untilAnswered(75)
      const elapsed = (performance.now() - cpu.sinceMs) / 1_000
      expect((await cpuSecondsOf(worker.pid) - cpu.seconds) / elapsed).toBeLessThan(0.5)
      expect(await cluster.readiness(api)).toMatchObject({ ready: false, postgres: 'away' })
      expect((await fetch(`${api.apiUrl}/readyz`)).status).toBe(503)
      expect((await fetch(`${worker.opsUrl}/readyz`)).status).toBe(503)
      expect((await fetch(`${worker.opsUrl}/healthz`)).status).toBe(200)
      const answersAway = await load.stop()

      const [id = ''] = ids.toReversed()
      const refused = await cluster.end(api, id)
      expect(refused).toMatchObject({ status: 503, body: { code: 14 } })
      expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
      expect(refused.ms).toBeLessThan(3_000)

      await postgres.restart()
      await vi.waitFor(async () => expect(await cluster.readiness(api)).toMatchObject({ ready: true }), { timeout: 10_000, interval: 50 })
      const good = new Map<string, Answer>()
      for (const [asked, answer] of answersAway) {
        if (answer.status === 200) good.set(asked, answer)
        else expect({ id: asked, status: answer.status, code: answer.body.code }).toEqual({ id: asked, status: expect.toBeOneOf([503, 504]), code: expect.toBeOneOf([14, 4]) })
      }
      await cluster.expectTruth(good)
      const again = new Map(await Promise.all([...answersAway.keys(), id].map(async (each) => [each, await cluster.end(api, each)] as const)))
      await cluster.expectTruth(again)
      for (const [asked, { body }] of good) expect(again.get(asked)?.body).toEqual(body)
      await cluster.untilQueued(api)
      await cluster.untilSettled()
      const self = await cluster.metric(api, 'curfew_terminations_total', 'via="self"')
      const [after = ''] = await cluster.live(1)
      await cluster.expectTruth(new Map([[after, await cluster.end(api, after)]]))
      expect(await cluster.metric(api, 'curfew_terminations_total', 'via="self"')).toBe(self)
    }, 60_000)

    it('stops by its own deadline while Postgres is away', async () => {
      await postgres.crash()
      await vi.waitFor(async () => expect(await cluster.readiness(worker)).toMatchObject({ postgres: 'away' }), { timeout: 10_000, interval: 50 })
      const since = performance.now()
      const codes = await Promise.all([api.stop(), worker.stop()])
      expect(performance.now() - since).toBeLessThan(12_000)
      expect(codes).toEqual([0, 0])
      await postgres.restart()
    }, 30_000)
  })
})

/** User and system time of a process so far (proc(5), in hundredths); where there is no /proc, none. */
const cpuSecondsOf = async (pid: number): Promise<number> => {
  const fields = (await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')).split(') ').at(-1)?.split(' ') ?? []
  return (Number(fields[11] ?? 0) + Number(fields[12] ?? 0)) / 100
}
