/** G4, G9: workers killed and replaced in the middle of a revocation; over Redis and over Postgres. */
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { redisMissing } from '../harness/redis.ts'
import type { ServiceProcess } from '../harness/processes.ts'
import { startCluster } from './cluster.ts'
import type { Cluster } from './cluster.ts'

const SESSIONS = 60_000

describe.each([{ backend: 'redis' }, { backend: 'postgres' }])('a revocation over $backend', ({ backend }) => {
  describe.skipIf(backend === 'redis' && redisMissing)('whose worker', () => {
    let cluster: Cluster
    let api: ServiceProcess
    beforeAll(async () => {
      cluster = await startCluster({ ...(backend === 'redis' ? {} : { redis: null }), settings: { PREVIEW_THRESHOLD: '1000000' } })
      api = await cluster.start('api')
    })
    afterAll(() => cluster.stop())

    const seed = (organization: string) =>
      cluster.database.sql.query(
        `INSERT INTO sessions (id, issuer, user_id, resource_owner, sequence, registration_hash, creator_issuer, creator_subject, born, created_at, change_date, expires_at)
         SELECT $1 || '-' || n, $2, 'u' || n, $1, 1, 'seed', $2, 'seeder', now(), now(), date_trunc('milliseconds', now()), now() + interval '1 hour' FROM generate_series(1, $3::int) n`,
        [organization, cluster.issuer.url, SESSIONS])

    const accept = async (organization: string): Promise<string> => {
      const { status, body } = await cluster.request(api, 'POST', '/v1/revocations', { filter: { resourceOwners: [organization] }, mode: 'revoke', reason: 'incident' })
      expect({ status, body }).toMatchObject({ status: 202, body: { done: false } })
      return (body as unknown as { name: string }).name
    }

    interface Counts { readonly state: string; readonly sessions: { readonly matched: string; readonly terminated: string } }
    const read = async (name: string) => {
      const { body } = await cluster.request(api, 'GET', `/v1/${name}`)
      return body as unknown as { done: boolean; metadata: Counts }
    }
    /** All counts of it, from every side, in one snapshot. */
    const truth = async (name: string) => {
      const { rows } = await cluster.database.sql.query<{ terminated: number; matched: number; events: number; sessions: number; commits: number; live: number }>(
        `SELECT (SELECT coalesce(sum(terminated), 0)::int FROM revocation_slices WHERE revocation_id = $1) AS terminated,
           (SELECT coalesce(sum(matched), 0)::int FROM revocation_slices WHERE revocation_id = $1) AS matched,
           (SELECT count(*)::int FROM session_events WHERE revocation_id = $1) AS events,
           (SELECT count(DISTINCT session_id)::int FROM session_events WHERE revocation_id = $1) AS sessions,
           (SELECT coalesce(sum(sessions), 0)::int FROM commits WHERE revocation_id = $1) AS commits`, [name.split('/')[1]])
      return rows[0]
    }
    const expectExact = async (name: string) => {
      const counts = await truth(name)
      expect(counts).toMatchObject({ matched: counts?.terminated, events: counts?.terminated, sessions: counts?.terminated, commits: counts?.terminated })
      return counts?.terminated ?? 0
    }
    const until = (name: string, terminated: number) =>
      vi.waitFor(async () => expect((await truth(name))?.terminated).toBeGreaterThanOrEqual(terminated), { timeout: 30_000, interval: 5 })
    const untilDone = async (name: string) => {
      await vi.waitFor(async () => expect((await read(name)).done).toBe(true), { timeout: 40_000, interval: 100 })
      expect(await expectExact(name)).toBe(SESSIONS)
      expect((await read(name)).metadata).toMatchObject({ state: 'done', sessions: { matched: String(SESSIONS), terminated: String(SESSIONS) } })
    }

    it('is killed goes on in another, with nothing done twice and nothing missed', async () => {
      await seed('killed')
      let worker = await cluster.start('worker')
      const name = await accept('killed')
      for (const part of [1, 15_000, 30_000]) {
        await until(name, part)
        await worker.kill()
        const before = await expectExact(name)
        expect(before).toBeLessThan(SESSIONS)
        expect(await read(name)).toMatchObject({ done: false, metadata: { sessions: { terminated: expect.any(String) } } })
        worker = await cluster.start('worker')
      }
      await untilDone(name)
      // G11: the second clock is set where the first worker died before it could.
      await vi.waitFor(async () => expect((await read(name)).metadata).toMatchObject({ committedTime: expect.any(String), enforcedTime: expect.any(String) }), { timeout: 20_000, interval: 100 })
      await worker.kill()
    }, 120_000)

    it('is told to stop leaves it to the next, and two share it', async () => {
      await seed('redeployed')
      const first = await cluster.start('worker')
      const name = await accept('redeployed')
      await until(name, 1)
      expect(await first.stop()).toBe(0)
      await expectExact(name)
      const workers = await Promise.all([cluster.start('worker'), cluster.start('worker')])
      await untilDone(name)
      await Promise.all(workers.map((worker) => worker.stop()))
    }, 120_000)
  })
})
