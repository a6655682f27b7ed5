/**
 * What a report tells of a revocation beyond its own row: its history, its rules, its receivers' outcomes, and every
 * session that it ended with what became of telling it. Reads alone; pages are bounded, whatever the size of the whole.
 */
import type { Database } from './postgres.ts'
import { countMatching } from './revocation-filter.ts'
import type { Matching } from './revocation-filter.ts'
import { readVisibleRevocation } from './revocations.ts'
import type { Revocation, Viewer } from './revocations.ts'
import { WITHIN, scopeOf } from './receivers.ts'
import type { Within } from './receivers.ts'
import { wireTime } from './wire-time.ts'

type Reads = Pick<Database, '$queryRawUnsafe'>

/** All that the route of reports needs of Postgres. @param retentionSeconds how long deliveries stay once they are done. */
export const createReportReads = ({ db, retentionSeconds }: { db: Database; retentionSeconds: number }) => ({
  readVisibleRevocation: (asked: { id: string; viewer: Viewer }) => readVisibleRevocation(db, asked),
  readHistory: (id: string) => readHistory(db, id),
  readRulesOf: (id: string) => readRulesOf(db, id),
  readOutcomes: (asked: Within & { id: string; after: string; limit: number }) => readOutcomes(db, asked),
  readFailures: (id: string) => readFailures(db, id),
  readEnded: (asked: { id: string; after: string }) => readEnded(db, { ...asked, retentionSeconds }),
  countRemaining: (revocation: Revocation) => countRemaining(db, revocation),
  readClock: () => readClock(db),
})

/** Who steered it, and how far it was. Times are RFC 3339 UTC. */
export interface HistoryEntry {
  readonly type: string
  readonly time: string
  readonly actor: { readonly issuer: string; readonly subject: string } | null
}

/** Steering is by hand; more is nobody's. */
const MOST_HISTORY = 10_000

export const readHistory = (db: Reads, id: string): Promise<HistoryEntry[]> =>
  db.$queryRawUnsafe<HistoryEntry[]>(
    `SELECT e.type, ${wireTime('e.created_at')} AS time, CASE WHEN e.actor_subject IS NOT NULL THEN
       jsonb_build_object('issuer', e.actor_issuer, 'subject', e.actor_subject) END AS actor
     FROM revocation_events e WHERE e.revocation_id = $1::text::uuid ORDER BY e.position LIMIT ${MOST_HISTORY}`, id,
  )

/** A rule that the revocation set. */
export interface ReportRule {
  readonly id: string
  readonly issuer: string
  readonly organization: string | null
  readonly user: string | null
  readonly cutoff: string
  readonly expires: string
  /** How often what it killed was still tried: a 64-bit number. */
  readonly attempts: string
  readonly lastAttemptTime: string | null
}

/** More than one revocation sets. */
const MOST_RULES = 10_000

/** Those that are still kept, in the order in which they were set. Relies on cutoff_rules_revocation_id_idx. */
export const readRulesOf = (db: Reads, id: string): Promise<ReportRule[]> =>
  db.$queryRawUnsafe<ReportRule[]>(
    `SELECT r.id::text AS id, r.issuer, r.resource_owner AS organization, r.user_id AS "user", ${wireTime('r.cutoff')} AS cutoff,
       ${wireTime('r.expires_at')} AS expires, coalesce(d.uses, 0)::text AS attempts, ${wireTime('d.last_at')} AS "lastAttemptTime"
     FROM cutoff_rules r LEFT JOIN dead_uses d ON d.target = 'rule' AND d.target_id = r.id::text AND d.issuer = r.issuer
     WHERE r.revocation_id = $1::text::uuid ORDER BY r.version LIMIT ${MOST_RULES}`, id,
  )

/** Counting further would look at too many entries where all of them have ended. */
const MOST_REMAINING = 10_000

/** Live sessions that the revocation is to end, counted anew up to a bound. */
export const countRemaining = (db: Database, { issuers, reach, filter, exclude, cutoff }: Revocation): Promise<Matching> =>
  countMatching(db, { issuers, reach, filter, exclude, cutoff }, MOST_REMAINING)

/** The database's clock, RFC 3339 UTC. */
export const readClock = async (db: Reads): Promise<string> => {
  const [row] = await db.$queryRawUnsafe<{ now: string }[]>(`SELECT ${wireTime('clock_timestamp()')} AS now`)
  if (row === undefined) throw new Error('The clock was not read')
  return row.now
}

/** A receiver's outcome. 64-bit numbers are strings. */
export interface OutcomeRow {
  readonly receiverId: string
  /** Null: it was deleted since. */
  readonly type: string | null
  readonly clientId: string | null
  readonly visible: boolean
  readonly total: string
  readonly acknowledged: string
  readonly pending: string
  readonly failed: string
  readonly moot: string
  readonly acknowledgedTime: string | null
}

/** Up to `limit` receivers in id order, after the id `after`; fewer means there are no more. */
export const readOutcomes = (
  db: Reads,
  { id, after, limit, ...within }: Within & { id: string; after: string; limit: number },
): Promise<OutcomeRow[]> =>
  db.$queryRawUnsafe<OutcomeRow[]>(
    `SELECT o.receiver_id AS "receiverId", r.type::text AS type, r.client_id AS "clientId", coalesce(${WITHIN}, $1::boolean) AS visible,
       o.total::text AS total, o.acknowledged::text AS acknowledged, o.pending::text AS pending, o.failed::text AS failed, o.moot::text AS moot,
       ${wireTime('o.acknowledged_at')} AS "acknowledgedTime"
     FROM revocation_outcomes o LEFT JOIN receivers r ON r.id = o.receiver_id
     WHERE o.revocation_id = $4::text::uuid AND o.receiver_id > $5 ORDER BY o.receiver_id LIMIT $6`,
    ...scopeOf(within), id, after, limit,
  )

/** Failed deliveries of a receiver by what their last attempt came to. */
export interface FailureRow {
  readonly receiverId: string
  readonly outcome: string
  readonly count: string
}

/** Of so many failed deliveries the reasons are counted: some hundred milliseconds. */
export const MOST_FAILURES = 100_000

/** Relies on deliveries_of_revocations. */
export const readFailures = (db: Reads, id: string): Promise<FailureRow[]> =>
  db.$queryRawUnsafe<FailureRow[]>(
    `SELECT receiver_id AS "receiverId", coalesce(last_outcome, 'unknown') AS outcome, count(*)::text AS count
     FROM (SELECT receiver_id, last_outcome FROM deliveries WHERE revocation_id = $1::text::uuid AND state = 'failed' LIMIT ${MOST_FAILURES}) f
     GROUP BY receiver_id, last_outcome ORDER BY receiver_id, last_outcome`, id,
  )

/** A session that the revocation ended, with those who took part in it and what was delivered. */
export interface EndedRow {
  readonly commit: string
  /** False until the deliveries of its commit are planned. */
  readonly routed: boolean
  /** True where its deliveries may have been pruned since. */
  readonly old: boolean
  readonly id: string
  readonly terminated: string
  /** Null, as what follows, where the session's own row was pruned. */
  readonly issuer: string | null
  readonly userId: string | null
  readonly resourceOwner: string | null
  readonly born: string | null
  /** How often it was still tried: a 64-bit number, or null where it was not. */
  readonly attempts: string | null
  readonly lastAttemptTime: string | null
  readonly participants: readonly { readonly clientId: string; readonly sid: string; readonly sub: string }[]
  readonly deliveries: readonly {
    readonly receiverId: string
    readonly clientId: string
    readonly sid: string
    readonly sub: string
    /** It stands for all sessions of this user at this client. */
    readonly ofUser: boolean
    readonly state: string
    readonly outcome: string | null
    readonly time: string | null
  }[]
}

/** Commits of few sessions; of larger ones, as many as have so many sessions together, and one at the least. */
const COMMITS_AT_ONCE = 200
/** Some tens of milliseconds, and about a megabyte. */
const SESSIONS_AT_ONCE = 1_000

const DELIVERY = `jsonb_build_object('receiverId', d.receiver_id, 'clientId', d.client_id, 'sid', d.sid, 'sub', d.sub, 'ofUser', d.of_user,
  'state', d.state, 'outcome', d.last_outcome, 'time', ${wireTime('coalesce(d.done_at, d.last_tried_at)')})`

// Each is looked up by its key (OFFSET 0), as in routing. `by_user` are the receivers that this revocation tells of users;
// where there are none, nobody looks for what they were told.
const ENDED = `
WITH next AS MATERIALIZED (
  SELECT id, sessions, routed_at IS NOT NULL AS routed FROM commits
  WHERE revocation_id = $1::text::uuid AND id > $2::text::bigint ORDER BY id LIMIT ${COMMITS_AT_ONCE}
), page AS MATERIALIZED (
  SELECT * FROM (SELECT *, sum(sessions) OVER (ORDER BY id) - sessions AS before FROM next) s WHERE before < ${SESSIONS_AT_ONCE}
), by_user AS MATERIALIZED (
  SELECT o.receiver_id, f.client_id FROM revocation_outcomes o CROSS JOIN LATERAL (
    SELECT client_id FROM deliveries d WHERE d.of_user AND d.revocation_id = o.revocation_id AND d.receiver_id = o.receiver_id LIMIT 1) f
  WHERE o.revocation_id = $1::text::uuid
)
SELECT k.id::text AS commit, k.routed, e.created_at < clock_timestamp() - make_interval(secs => $3::float8) AS old, e.session_id AS id,
  ${wireTime('e.created_at')} AS terminated, s.issuer, s.user_id AS "userId", s.resource_owner AS "resourceOwner", ${wireTime('s.born')} AS born,
  a.uses::text AS attempts, ${wireTime('a.last_at')} AS "lastAttemptTime", p.list AS participants, o.list || u.list AS deliveries
FROM page k
CROSS JOIN LATERAL (
  SELECT session_id, created_at FROM session_events WHERE commit_id = k.id AND type = 'session.terminated' OFFSET 0) e
LEFT JOIN LATERAL (SELECT issuer, user_id, resource_owner, born FROM sessions WHERE id = e.session_id OFFSET 0) s ON true
LEFT JOIN LATERAL (
  SELECT uses, last_at FROM dead_uses WHERE target = 'session' AND target_id = e.session_id AND issuer = s.issuer OFFSET 0) a ON true
CROSS JOIN LATERAL (
  SELECT coalesce(jsonb_agg(jsonb_build_object('clientId', client_id, 'sid', sid, 'sub', sub) ORDER BY client_id, sid), '[]') AS list
  FROM session_clients WHERE session_id = e.session_id) p
CROSS JOIN LATERAL (
  SELECT coalesce(jsonb_agg(${DELIVERY} ORDER BY d.receiver_id, d.id), '[]') AS list
  FROM deliveries d WHERE d.session_id = e.session_id AND NOT d.of_user) o
CROSS JOIN LATERAL (
  SELECT coalesce(jsonb_agg(${DELIVERY} ORDER BY d.receiver_id, d.id), '[]') AS list
  FROM by_user b
  CROSS JOIN LATERAL (SELECT DISTINCT sub FROM session_clients WHERE session_id = e.session_id AND client_id = b.client_id) c
  CROSS JOIN LATERAL (
    SELECT * FROM deliveries WHERE of_user AND revocation_id = $1::text::uuid AND receiver_id = b.receiver_id
      AND client_id = b.client_id AND sub = c.sub OFFSET 0) d) u
ORDER BY k.id, e.session_id`

/**
 * The next sessions that the revocation ended, in the order of commits; none means there are no more. A revocation that
 * still runs may commit behind a reader.
 *
 * @param after the commit of the last row; '0' for the first page. @param retentionSeconds how long deliveries stay.
 */
export const readEnded = (
  db: Reads,
  { id, after, retentionSeconds }: { id: string; after: string; retentionSeconds: number },
): Promise<EndedRow[]> => db.$queryRawUnsafe<EndedRow[]>(ENDED, id, after, retentionSeconds)
