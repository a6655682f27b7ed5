/**
 * Very many tombstones: a Redis that lost them all gets them back, and guards learn them from it and over HTTP. Seconds and
 * memory are printed. `CURFEW_TEST_TOMBSTONES=1000000` for a million; fewer by default, so that a test run stays short.
 */
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { streamKeys } from '../../src/client/redis-names.ts'
import { startCluster } from '../failures/cluster.ts'
import type { Cluster } from '../failures/cluster.ts'
import { redisMissing } from '../harness/redis.ts'
import type { TestRedis } from '../harness/redis.ts'
import type { ServiceProcess } from '../harness/processes.ts'
import { startGuardProcess } from './guard-process.ts'

const COUNT = Number(process.env['CURFEW_TEST_TOMBSTONES'] ?? 30_000)
const PER_COMMIT = 500
const LIMIT_MS = 30_000 + COUNT / 5

describe.skipIf(redisMissing)(`${COUNT.toLocaleString('en')} tombstones`, () => {
  let cluster: Cluster
  let redis: TestRedis
  let api: ServiceProcess

  beforeAll(async () => {
    cluster = await startCluster()
    if (cluster.redis === null) throw new Error('no Redis')
    redis = cluster.redis
    await cluster.database.sql.query(
      `INSERT INTO sessions (id, issuer, user_id, resource_owner, state, sequence, registration_hash, creator_issuer, creator_subject, born, created_at,
         change_date, expires_at, terminated_at)
       SELECT 'many-' || n, $1, 'u' || n, 'o1', 'terminated', 2, '\\x00', $1, 'seeder', now(), now(), now(), now() + interval '1 day', now()
       FROM generate_series(1, $2::int) n`, [cluster.issuer.url, COUNT])
    await cluster.database.sql.query(
      `WITH made AS (
         INSERT INTO commits (sessions, routed_at, enforced_at, enforced_again_at)
         SELECT ${PER_COMMIT}, now(), now(), now() FROM generate_series(1, ceil($1::float8 / ${PER_COMMIT})::int) RETURNING id
       ), numbered AS (SELECT id, row_number() OVER (ORDER BY id) - 1 AS k FROM made)
       INSERT INTO session_events (session_id, sequence, type, actor_issuer, actor_subject, commit_id, resource_owner, created_at)
       SELECT 'many-' || n, 2, 'session.terminated', 'i', 's', m.id, 'o1', now()
       FROM generate_series(1, $1::int) n JOIN numbered m ON m.k = (n - 1) / ${PER_COMMIT}`, [COUNT])
    await cluster.database.sql.query('ANALYZE')
    // The worker finds a Redis without anything in it.
    await cluster.start('worker')
    api = await cluster.start('api')
  }, LIMIT_MS)
  afterAll(() => cluster.stop())

  const say = (line: string) => process.stdout.write(`${line}\n`)
  const mebibytes = (bytes: number) => `${(bytes / 1_048_576).toFixed(1)} MiB`
  const usedByRedis = async () => Number(/used_memory:(\d+)/.exec(await redis.client.info('memory'))?.[1])
  const untilWritten = () =>
    vi.waitUntil(async () => (await redis.client.hexists(streamKeys.state, 'epoch')) === 1 && (await redis.client.zcard(streamKeys.tombstones)) >= COUNT, { timeout: LIMIT_MS, interval: 50 })

  it('come back into a Redis that lost them, and every one is there', async () => {
    await untilWritten()
    await redis.client.flushall()
    const empty = await usedByRedis()
    const sinceMs = performance.now()
    await untilWritten()
    say(`written again in ${((performance.now() - sinceMs) / 1_000).toFixed(1)} s, ${mebibytes((await usedByRedis()) - empty)} of Redis`)
    expect(await redis.client.zcard(streamKeys.tombstones)).toBe(COUNT)
  }, LIMIT_MS)

  it.each(['Redis', 'HTTP'])('are all known to a guard that starts, through %s, and it follows what comes after', async (through) => {
    await untilWritten()
    const token = await cluster.issuer.token({ sub: 'resource-server', permissions: ['session.read'] })
    const sinceMs = performance.now()
    const guard = await startGuardProcess({ ...(through === 'Redis' ? { redis: redis.url } : { url: api.apiUrl, token }), startWithinMs: LIMIT_MS })
    const seconds = (performance.now() - sinceMs) / 1_000
    const ask = async (ids: readonly string[]) => guard.ask(ids.map((sessionId) => ({ issuer: cluster.issuer.url, sessionId })))
    const { holds, staleMs } = await ask([])
    say(`a guard through ${through}: ${seconds.toFixed(1)} s with its process’ start, ${mebibytes(holds.bytes)} (${(holds.bytes / holds.tombstones).toFixed(1)} bytes a tombstone), then ${Number(staleMs).toFixed(0)} ms stale`)
    expect(holds.tombstones).toBeGreaterThanOrEqual(COUNT)
    const sample = Array.from({ length: 1_000 }, (_, n) => `many-${1 + Math.floor((n * (COUNT - 1)) / 999)}`)
    expect(new Set((await ask(sample)).verdicts)).toEqual(new Set(['terminated']))
    const [next = '', alive = ''] = await cluster.live(2)
    await cluster.end(api, next)
    await vi.waitFor(async () => expect((await ask([next, alive])).verdicts).toEqual(['terminated', 'active']), { timeout: 20_000, interval: 20 })
    await guard.stop()
  }, LIMIT_MS)
})
