/**
 * What a report tells of a revocation beyond its own row: its history, its rules, its receivers' outcomes, what is left; the
 * sessions that it ended are in `revocation-ended.ts`. Reads alone, and each is bounded.
 */
import { sqlState } from './postgres-failures.ts'
import type { Database } from './postgres.ts'
import { countMatching } from './revocation-filter.ts'
import type { Matching } from './revocation-filter.ts'
import { readEnded, readToldOfUsers } from './revocation-ended.ts'
import type { UserAtReceiver } from './revocation-ended.ts'
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
  readToldOfUsers: (asked: { id: string; users: readonly UserAtReceiver[] }) => readToldOfUsers(db, asked),
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

/** Of the pool's own time limit: what takes longer is "at least none". */
const CANCELLED = '57014'

/** Live sessions that the revocation is to end, counted anew up to a bound of sessions and of time. */
export const countRemaining = (db: Database, { issuers, reach, filter, exclude, cutoff }: Revocation): Promise<Matching> =>
  countMatching(db, { issuers, reach, filter, exclude, cutoff }, MOST_REMAINING).catch((error: unknown) => {
    if (sqlState(error) === CANCELLED) return { count: 0, exact: false }
    throw error
  })

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
  readonly issuer: string | null
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
    `SELECT o.receiver_id AS "receiverId", r.type::text AS type, r.issuer, r.client_id AS "clientId", coalesce(${WITHIN}, $1::boolean) AS visible,
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
