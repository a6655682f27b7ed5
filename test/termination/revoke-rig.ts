/** The engine over a real database, with revocations written as acceptance writes them, and without caches or queue. */
import type { EndedSession, RevocationExclusions, RevocationFilter } from '../../src/model.ts'
import { openDatabase } from '../../src/store/postgres.ts'
import type { Database } from '../../src/store/postgres.ts'
import { readInteractiveAge } from '../../src/store/revocation-clocks.ts'
import { insertRevocation } from '../../src/store/revocations.ts'
import type { NewRevocation } from '../../src/store/revocations.ts'
import { createTelemetry } from '../../src/telemetry.ts'
import { createPace } from '../../src/termination/revoke-pace.ts'
import { createRevoke } from '../../src/termination/revoke.ts'
import type { RevokeDeps } from '../../src/termination/revoke.ts'
import { uuidV7 } from '../../src/termination/uuid-v7.ts'
import { createDatabase } from '../harness/postgres.ts'
import { ISSUER } from '../harness/seed.ts'
import { noFilter } from '../store/revocation-candidates.ts'

export type Asked = Partial<Omit<NewRevocation, 'filter' | 'exclude'>> & { filter?: Partial<RevocationFilter>; exclude?: Partial<RevocationExclusions> }

export const createRevokeRig = async () => {
  const database = await createDatabase()
  const { sql } = database
  const opened: Database[] = []
  const engines: { stop: () => Promise<void> }[] = []
  const open = (max = 6): Database => {
    const db = openDatabase({ url: database.url, name: 'revoke', max, statementTimeoutMs: 30_000 })
    opened.push(db)
    return db
  }
  const db = open()
  const { log } = createTelemetry({ level: 'silent' })

  /** An engine as one process has it. */
  const engine = (change: Partial<RevokeDeps> = {}) => {
    const own = change.db ?? open()
    const stopping = new AbortController()
    const told: { commitId: string; ended: readonly EndedSession[] }[] = []
    const pace = change.pace ?? createPace({ readInteractiveAge: () => readInteractiveAge(own) })
    const revoke = createRevoke({
      db: own, pace, enforce: async (commitId, ended) => void told.push({ commitId, ended }), readRuleOnStream: async () => null,
      wakeRoute: () => {}, signal: stopping.signal, log, ...change,
    })
    const engine = {
      ...revoke,
      pace,
      told,
      stop: async () => {
        stopping.abort()
        await revoke.stop()
      },
    }
    engines.push(engine)
    return engine
  }

  const accept = async ({ filter, exclude, ...change }: Asked = {}): Promise<string> => {
    const id = uuidV7(Date.now())
    await insertRevocation(db, {
      id, mode: 'revoke', reason: 'stolen laptop', ticket: 'INC-1', actor: { issuer: ISSUER, subject: 'admin' }, issuers: [ISSUER], reach: 'instance',
      containment: 'rows', deliveriesPerSecond: null, expected: 0, expectedExact: true, reachesBorn: null, ...change,
      filter: { ...noFilter, ...filter }, exclude: { userIds: [], sessionIds: [], ...exclude },
    })
    return id
  }

  /** Many live sessions of one organization at once, each with its event 1; ids sort as they are numbered. */
  const seed = (prefix: string, count: number, { organization = prefix, bornSecondsAgo = 3_600 } = {}) =>
    sql.query(
      `WITH s AS (
         INSERT INTO sessions (id, issuer, user_id, resource_owner, sequence, registration_hash, creator_issuer, creator_subject, born, created_at, change_date, expires_at)
         SELECT $1 || '-' || lpad(n::text, 8, '0'), $2, 'u' || n % 100, $3, 1, 'seed', $2, 'seeder', now() - make_interval(secs => $5), now(), date_trunc('milliseconds', now()),
           now() + make_interval(secs => 3600 + hashtext(n::text) % 3000)
         FROM generate_series(1, $4::int) n RETURNING id, resource_owner, issuer, change_date)
       INSERT INTO session_events (session_id, sequence, type, actor_issuer, actor_subject, resource_owner, created_at)
       SELECT id, 1, 'session.added', issuer, 'seeder', resource_owner, change_date FROM s`,
      [prefix, ISSUER, organization, count, bornSecondsAgo],
    )

  const one = async <T>(text: string, values: unknown[] = []): Promise<T> => (await sql.query(text, values)).rows[0] as T

  /** What Postgres says of a revocation, counted from every side. */
  const truth = (id: string) =>
    one<{ state: string; pass: number; matched: number; terminated: number; events: number; sessions: number; commits: number; committed: boolean; enforced: boolean }>(
      `SELECT r.state::text, r.pass, l.matched::int, l.terminated::int, r.committed_at IS NOT NULL AS committed, r.enforced_at IS NOT NULL AS enforced,
         (SELECT count(*) FROM session_events WHERE revocation_id = r.id AND type = 'session.terminated')::int AS events,
         (SELECT count(DISTINCT session_id) FROM session_events WHERE revocation_id = r.id)::int AS sessions,
         (SELECT coalesce(sum(sessions), 0) FROM commits WHERE revocation_id = r.id)::int AS commits
       FROM revocations r CROSS JOIN LATERAL (SELECT coalesce(sum(matched), 0) AS matched, coalesce(sum(terminated), 0) AS terminated FROM revocation_slices WHERE revocation_id = r.id) l
       WHERE r.id = $1`, [id])

  const live = async (organization: string): Promise<number> =>
    (await one<{ n: number }>(`SELECT count(*)::int AS n FROM sessions WHERE resource_owner = $1 AND state = 'active'`, [organization])).n

  return {
    sql, db, url: database.url, engine, accept, seed, truth, live, one,
    close: async () => {
      await Promise.all(engines.map((each) => each.stop()))
      await Promise.all(opened.map((each) => each.$disconnect()))
      await database.drop()
    },
  }
}

export type RevokeRig = Awaited<ReturnType<typeof createRevokeRig>>
