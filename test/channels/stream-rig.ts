/** Commits, the stream channel and upkeep's part of it over a real Postgres and a real Redis, and guards that follow. */
import { randomUUID } from 'node:crypto'
import { Redis } from 'ioredis'
import { vi } from 'vitest'
import { createCacheChannel } from '../../src/channels/cache.ts'
import { createStreamChannel } from '../../src/channels/stream.ts'
import { createGuard } from '../../src/client/index.ts'
import { streamKeys, tombstoneMember } from '../../src/client/redis-names.ts'
import type { Guard, GuardOptions } from '../../src/client/index.ts'
import { createAnnounceRules } from '../../src/outbox/announce-rules.ts'
import { createEnforcement } from '../../src/outbox/enforce.ts'
import { createKeepStream } from '../../src/outbox/keep-stream.ts'
import { insertRule } from '../../src/store/cutoff-rules.ts'
import type { NewRule } from '../../src/store/cutoff-rules.ts'
import { openDatabase } from '../../src/store/postgres.ts'
import { createTelemetry } from '../../src/telemetry.ts'
import { createTerminate } from '../../src/termination/terminate.ts'
import { createDatabase } from '../harness/postgres.ts'
import { startRedis } from '../harness/redis.ts'
import { command, ISSUER, seedSessions } from '../harness/seed.ts'

export type StreamRig = Awaited<ReturnType<typeof startStreamRig>>

/** @param cache the applications' own Redis. */
export const startStreamRig = async ({ cache = null, keyTemplates = [] }: { cache?: Redis | null; keyTemplates?: string[] } = {}) => {
  const database = await createDatabase()
  const redis = await startRedis(['--appendfsync', 'always'])
  const db = openDatabase({ url: database.url, name: 'test', max: 6 })
  const connection = new Redis(redis.url, { enableOfflineQueue: false, maxRetriesPerRequest: 0, commandTimeout: 500, retryStrategy: () => 20 })
  connection.on('error', () => {})
  await vi.waitUntil(() => connection.status === 'ready', { timeout: 10_000 })
  const { log, metrics } = createTelemetry({ level: 'silent' })
  const stream = createStreamChannel({ redis: connection, maxTokenLifetimeSeconds: 3_600, now: Date.now })
  const channel = createCacheChannel({ cache, keyTemplates })
  const enforcement = createEnforcement({ db, channel, stream, secondDeleteSeconds: 60, metrics, log })
  const terminate = createTerminate({ db, enforce: enforcement.enforce, wakeRoute: () => {}, log })
  const keepStream = createKeepStream({ db, stream, maxSessionLifetimeSeconds: 86_400, maxTokenLifetimeSeconds: 3_600, log })
  await enforcement.start()
  const guards: Guard[] = []

  const live = async (count: number, sidsOf: (id: string) => readonly string[] = () => []): Promise<string[]> => {
    const ids = Array.from({ length: count }, () => randomUUID())
    await seedSessions(database.sql, ids.map((id) => ({ id, clients: sidsOf(id).map((sid, n) => ({ clientId: `app${n}`, sid })) })))
    return ids
  }
  const end = async (ids: readonly string[]) => terminate(ids.map((id) => command(id)))
  const held = async (sid: string) => (await redis.client.zscore(streamKeys.tombstones, tombstoneMember(ISSUER, sid))) !== null
  // Before every rule that a test sets.
  const born = Date.now() / 1_000
  const check = (guard: Guard, sessionId: string) => guard.check({ issuer: ISSUER, sessionId, subject: 'u1', organization: 'o1', born })

  return {
    database, db, redis, connection, stream, enforcement, keepStream, live, end, check,
    /** Whether Redis has a tombstone for it. */
    held,
    /** All that was to be told so far was to be told so long ago that upkeep takes it up. */
    age: () => database.sql.query(`UPDATE commits SET committed_at = committed_at - interval '1 minute', retold_at = retold_at - interval '1 minute'`),
    announceRules: createAnnounceRules({ db, stream, log }),
    /** A guard on this Redis; closed at the end. */
    guard: async (options: GuardOptions = {}): Promise<Guard> => {
      const guard = await createGuard({ redis: redis.url, startWithinMs: 5_000, ...options })
      guards.push(guard)
      return guard
    },
    until: (condition: () => boolean) => vi.waitUntil(condition, { timeout: 15_000, interval: 5 }),
    /** Until all commits are enforced; what a moment of a slow Redis left to upkeep, upkeep does. */
    untilEnforced: () => vi.waitUntil(async () => {
      await enforcement.enforcePending()
      return (await database.sql.query('SELECT FROM commits WHERE enforced_at IS NULL')).rowCount === 0
    }, { timeout: 15_000, interval: 20 }),
    /** Upkeep's looks until one finds the stream whole and fresh. */
    untilWhole: () => vi.waitUntil(async () => {
      await keepStream.tick().catch(() => {})
      return (await stream.state().catch(() => null))?.whole === true
    }, { timeout: 15_000, interval: 20 }),
    setRule: (change: Partial<NewRule> = {}) => insertRule(db, {
      id: randomUUID(), issuer: ISSUER, organization: null, user: null, bornBefore: null, excludeUsers: [], excludeSessions: [],
      reason: 'test', actor: { issuer: ISSUER, subject: 'admin' }, revocationId: null, ...change,
    }, { lifetimeSeconds: 3_600 }),
    stop: async () => {
      await Promise.all(guards.map((guard) => guard.close()))
      await enforcement.stop()
      connection.disconnect()
      await redis.stop()
      await db.$disconnect()
      await database.drop()
    },
  }
}
