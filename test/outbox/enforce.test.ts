import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { Redis } from 'ioredis'
import { createCacheChannel } from '../../src/channels/cache.ts'
import { createStreamChannel } from '../../src/channels/stream.ts'
import { streamKeys, tombstoneMember } from '../../src/client/redis-names.ts'
import { createEnforcement } from '../../src/outbox/enforce.ts'
import { openDatabase } from '../../src/store/postgres.ts'
import type { Database } from '../../src/store/postgres.ts'
import { terminateSessions } from '../../src/store/terminations.ts'
import { createTelemetry } from '../../src/telemetry.ts'
import { createTerminate } from '../../src/termination/terminate.ts'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'
import { redisMissing, startRedis } from '../harness/redis.ts'
import type { TestRedis } from '../harness/redis.ts'
import { command, ISSUER, seedSessions } from '../harness/seed.ts'
import { startSessionApp } from '../harness/session-app.ts'

describe.skipIf(redisMissing)('the second clock', () => {
  let database: TestDatabase
  let redis: TestRedis
  let db: Database
  let connection: Redis

  beforeAll(async () => {
    database = await createDatabase()
    db = openDatabase({ url: database.url, name: 'test', max: 4 })
    redis = await startRedis()
    connection = new Redis(redis.url, { enableOfflineQueue: false, maxRetriesPerRequest: 0, commandTimeout: 500, retryStrategy: () => 20 })
    connection.on('error', () => {})
    await vi.waitUntil(() => connection.status === 'ready', { timeout: 10_000 })
  })
  afterAll(async () => {
    connection.disconnect()
    await redis.stop()
    await db.$disconnect()
    await database.drop()
  })
  beforeEach(() => database.sql.query('TRUNCATE sessions, session_clients, session_events, commits'))

  const setup = (options: { keyTemplates?: string[]; secondDeleteSeconds?: number } = {}) => {
    const { log, metrics } = createTelemetry({ level: 'silent' })
    const channel = createCacheChannel({ cache: connection, keyTemplates: options.keyTemplates ?? [] })
    const stream = createStreamChannel({ redis: connection, maxTokenLifetimeSeconds: 60, now: Date.now })
    const enforcement = createEnforcement({ db, channel, stream, secondDeleteSeconds: options.secondDeleteSeconds ?? 0, metrics, log })
    return { enforcement, metrics, terminate: createTerminate({ db, enforce: enforcement.enforce, wakeRoute: () => {}, log }) }
  }
  /** Seconds until the tombstone may be forgotten; NaN where there is none. */
  const tombstoneSeconds = async (id: string) =>
    (Number((await redis.client.zscore(streamKeys.tombstones, tombstoneMember(ISSUER, id))) ?? NaN) - Date.now()) / 1_000
  const commits = async () => (await database.sql.query('SELECT * FROM commits ORDER BY id')).rows

  it('deletes recorded keys and those made from templates, and leaves a tombstone, before it answers', async () => {
    const { terminate } = setup({ keyTemplates: ['sess:{sid}', 'user:{userId}:{id}'] })
    await seedSessions(database.sql, [{ id: 's1', userId: 'u9', cacheKeys: ['app:1'], clients: [{ clientId: 'rp', sid: 'rp-sid' }] }])
    await redis.client.mset({ 'app:1': 'x', 'sess:s1': 'x', 'sess:rp-sid': 'x', 'user:u9:s1': 'x', 'app:2': 'x' })
    await terminate([command('s1')])
    expect(await redis.client.exists('app:1', 'sess:s1', 'sess:rp-sid', 'user:u9:s1')).toBe(0)
    expect(await redis.client.exists('app:2')).toBe(1)
    expect(await tombstoneSeconds('s1')).toBeGreaterThan(0)
  })

  it('keeps a tombstone as long as the session or a token of it could live', async () => {
    const { terminate } = setup()
    await seedSessions(database.sql, [{ id: 'long', expiresInSeconds: 1_000 }, { id: 'short', expiresInSeconds: 5 }])
    await terminate([command('long'), command('short')])
    expect(await tombstoneSeconds('long')).toBeGreaterThan(990)
    expect(await tombstoneSeconds('short')).toBeGreaterThan(50)
    expect(await tombstoneSeconds('short')).toBeLessThanOrEqual(61)
  })

  it('G11: measures from commit to caches, also where upkeep had to tell them', async () => {
    const { terminate, enforcement, metrics } = setup()
    await seedSessions(database.sql, [{ id: 's1' }, { id: 's2' }])
    await terminate([command('s1')])
    await enforcement.stop()
    await terminateSessions(db, [command('s2')])
    await database.sql.query(`UPDATE commits SET committed_at = now() - interval '90 seconds' WHERE enforced_at IS NULL`)
    await enforcement.enforcePending()
    await enforcement.enforcePending()
    const { values } = await metrics.curfew_enforced_seconds.get()
    const valueOf = (part: string, le?: number) => values.find(({ metricName, labels }) => metricName === `curfew_enforced_seconds_${part}` && labels.le === le)?.value
    expect(valueOf('count')).toBe(2)
    expect(valueOf('bucket', 60)).toBe(1)
    expect(valueOf('bucket', 600)).toBe(2)
  })

  it('G11: records when a commit was enforced', async () => {
    const { terminate, enforcement } = setup()
    await seedSessions(database.sql, [{ id: 's1' }])
    await terminate([command('s1')])
    await enforcement.stop()
    const [commit] = await commits()
    expect(commit.enforced_at.getTime()).toBeGreaterThanOrEqual(commit.committed_at.getTime())
    expect(commit.enforced_at.getTime() - commit.committed_at.getTime()).toBeLessThan(2_000)
  })

  it('G4: a commit made while Redis is away is answered, and enforced when it is back', async () => {
    const { terminate, enforcement } = setup({ keyTemplates: ['sess:{sid}'] })
    await seedSessions(database.sql, [{ id: 's1' }])
    await redis.kill()
    expect(await terminate([command('s1')])).toMatchObject([{ outcome: 'ended' }])
    await enforcement.stop()
    expect((await commits())[0].enforced_at).toBeNull()
    await redis.restart({ empty: true })
    await redis.client.set('sess:s1', 'x')
    await expect.poll(() => connection.status).toBe('ready')
    await database.sql.query(`UPDATE commits SET committed_at = committed_at - interval '1 minute'`)
    await enforcement.enforcePending()
    expect(await redis.client.exists('sess:s1')).toBe(0)
    expect(await tombstoneSeconds('s1')).toBeGreaterThan(0)
    expect((await commits())[0].enforced_at).not.toBeNull()
  })

  it('waits for silent caches once, not for every commit, and uses them again when they answer', async () => {
    const { terminate, enforcement } = setup()
    const ids = Array.from({ length: 40 }, (_, n) => `silent${n}`)
    await seedSessions(database.sql, ids.map((id) => ({ id })))
    redis.freeze()
    const since = performance.now()
    for (const id of ids) await terminate([command(id)])
    // Each alone would wait 100 ms: four seconds in all.
    expect(performance.now() - since).toBeLessThan(2_000)
    redis.thaw()
    let after = 0
    await vi.waitUntil(async () => {
      after += 1
      await seedSessions(database.sql, [{ id: `after${after}` }])
      await terminate([command(`after${after}`)])
      return (await tombstoneSeconds(`after${after}`)) > 0
    }, { timeout: 10_000 })
    await database.sql.query(`UPDATE commits SET committed_at = committed_at - interval '1 minute'`)
    await enforcement.enforcePending()
    for (const id of ids) expect(await tombstoneSeconds(id)).toBeGreaterThan(0)
  })

  it('G2: a real express-session application loses its session, also when a request in flight writes it back', async () => {
    const app = await startSessionApp(redis.url)
    const { terminate, enforcement } = setup({ keyTemplates: ['sess:{sid}'] })
    const { cookie, sid } = await app.logIn('alice')
    expect(await app.whoAmI(cookie)).toBe('alice')
    await seedSessions(database.sql, [{ id: 's1', clients: [{ clientId: 'app', sid }] }])
    const request = await app.slowRequest(cookie)
    await terminate([command('s1')])
    expect(await app.whoAmI(cookie)).toBeNull()
    await request.finish()
    // The application has written its session back: this is the resurrection that the second deletion ends.
    expect(await app.whoAmI(cookie)).toBe('alice')
    await enforcement.stop()
    await enforcement.enforceAgain()
    expect(await app.whoAmI(cookie)).toBeNull()
    expect((await commits())[0].enforced_again_at).not.toBeNull()
    await app.close()
  })

  it('asks for no second deletion where there is no key to delete', async () => {
    const { terminate, enforcement } = setup()
    await seedSessions(database.sql, [{ id: 's1' }])
    await terminate([command('s1')])
    await enforcement.stop()
    expect((await commits())[0].enforced_again_at).not.toBeNull()
  })
})
