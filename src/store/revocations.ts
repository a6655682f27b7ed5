/**
 * Revocations: the decision to end many sessions, its state, and its counts, which are exact at every moment.
 *
 * A row is written once when it is accepted, in the transaction that sets its cutoff rules, and then changed only by
 * steering and by the engine's milestones. What was matched and ended is the sum over its slices; what became of its
 * deliveries, the sum over its receivers' outcomes.
 */
import type {
  Actor, Containment, NotificationState, RevocationExclusions, RevocationFilter, RevocationScope, RevocationState, TerminationMode,
} from '../model.ts'
import type { Database } from './postgres.ts'
import { wireTime } from './wire-time.ts'

/** The connection, or a transaction of it. */
export type RevocationTransaction = Pick<Database, '$queryRawUnsafe'>

/** Whatever the filter says, nothing beyond is reached: the whole instance, or these organizations. */
type Reach = RevocationScope['reach']

/** A revocation to be accepted. */
export interface NewRevocation {
  /** A UUIDv7. */
  readonly id: string
  readonly mode: TerminationMode
  readonly reason: string | null
  readonly ticket: string | null
  readonly actor: Actor
  readonly issuers: readonly string[]
  readonly reach: Reach
  readonly filter: RevocationFilter
  readonly exclude: RevocationExclusions
  readonly containment: Containment
  readonly deliveriesPerSecond: number | null
  /** What matched when it was counted, up to a bound. */
  readonly expected: number
  readonly expectedExact: boolean
  /** RFC 3339: what was born up to then is reached even if that is later than now; for a single session. */
  readonly reachesBorn: string | null
}

/** A revocation as it is now. Times are RFC 3339 UTC with three fractional digits; 64-bit numbers are strings. */
export interface Revocation extends Omit<NewRevocation, 'expected' | 'reachesBorn'> {
  readonly state: RevocationState
  readonly notifications: NotificationState
  /** What was born later lives. A whole second. */
  readonly cutoff: string
  readonly expected: string
  readonly created: string
  readonly changed: string
  /** The three clocks. Null: not yet. */
  readonly committed: string | null
  readonly enforced: string | null
  /** When the last receiver answered that did; null while anything is to be told. */
  readonly acknowledged: string | null
  /** Of what has ended so far, nobody is still to be told. */
  readonly told: boolean
  /** Live sessions met so far that matched, and those that this revocation ended. */
  readonly matched: string
  readonly terminated: string
  readonly deliveries: { readonly [State in 'total' | 'acknowledged' | 'pending' | 'failed' | 'moot']: string }
}

/** Which revocations a caller sees: its own, and those whose reach and issuers lie within its own. Null: its own alone. */
export interface Viewer {
  readonly actor: Actor
  readonly issuers: readonly string[]
  readonly reach: Reach | null
}

/** Parameters of `VISIBLE`, `$1` to `$5`. */
export const viewerParameters = ({ actor, issuers, reach }: Viewer): unknown[] => [
  actor.issuer, actor.subject, reach === 'instance', reach === null || reach === 'instance' ? [] : [...reach], issuers,
]

/** A condition on the revocation `r`. Without reach `$4` is empty, and nothing that has organizations lies within it. */
export const VISIBLE = `((r.actor_issuer = $1 AND r.actor_subject = $2)
  OR (r.issuers <@ $5::text[] AND ($3::boolean OR (NOT r.instance AND r.organizations <@ $4::text[]))))`

/** What is read of the revocation `r`, without its filter. Sums over some ten slices and as many outcomes as it has receivers. */
export const REVOCATION_COLUMNS = `r.id::text AS id, r.state::text AS state, r.notifications::text AS notifications, r.mode::text AS mode, r.reason, r.ticket,
  jsonb_build_object('issuer', r.actor_issuer, 'subject', r.actor_subject) AS actor, r.issuers, r.instance, r.organizations,
  r.containment, ${wireTime('r.cutoff_time')} AS cutoff, r.deliveries_per_second AS "deliveriesPerSecond",
  r.expected::text AS expected, r.expected_exact AS "expectedExact", ${wireTime('r.created_at')} AS created, ${wireTime('r.changed_at')} AS changed,
  ${wireTime('r.committed_at')} AS committed, ${wireTime('r.enforced_at')} AS enforced,
  CASE WHEN r.state = 'done' AND t.told THEN ${wireTime('CASE WHEN o.total = 0 THEN r.committed_at ELSE o.acknowledged_at END')} END AS acknowledged,
  t.told,
  n.matched::text AS matched, n.terminated::text AS terminated,
  jsonb_build_object('total', o.total::text, 'acknowledged', o.acknowledged::text, 'pending', o.pending::text,
    'failed', o.failed::text, 'moot', o.moot::text) AS deliveries`

/** What `REVOCATION_COLUMNS` is read from. */
export const REVOCATION_SUMS = `
  CROSS JOIN LATERAL (
    SELECT coalesce(sum(matched), 0) AS matched, coalesce(sum(terminated), 0) AS terminated
    FROM revocation_slices WHERE revocation_id = r.id) n
  CROSS JOIN LATERAL (
    SELECT coalesce(sum(total), 0) AS total, coalesce(sum(acknowledged), 0) AS acknowledged, coalesce(sum(pending), 0) AS pending,
      coalesce(sum(failed), 0) AS failed, coalesce(sum(moot), 0) AS moot, max(acknowledged_at) AS acknowledged_at
    FROM revocation_outcomes WHERE revocation_id = r.id) o
  CROSS JOIN LATERAL (
    SELECT o.pending = 0 AND NOT EXISTS (SELECT FROM commits c WHERE c.revocation_id = r.id AND c.routed_at IS NULL) AS told) t`

const FILTER_COLUMNS = 'r.filter, r.exclude'

export type ReadColumns = Omit<Revocation, 'reach'> & { readonly instance: boolean; readonly organizations: readonly string[] }

export const revocationOf = <Row extends Partial<ReadColumns> & Pick<ReadColumns, 'instance' | 'organizations'>>(
  { instance, organizations, ...row }: Row,
): Omit<Row, 'instance' | 'organizations'> & { readonly reach: Reach } => ({ ...row, reach: instance ? 'instance' : new Set(organizations) })

// Rounded up, because tokens carry seconds: one of the same second may be older.
const INSERT = `
WITH clock AS MATERIALIZED (
  SELECT clock_timestamp() AS at
), r AS (
  INSERT INTO revocations (id, mode, reason, ticket, actor_issuer, actor_subject, issuers, instance, organizations, filter, exclude,
    containment, cutoff_time, deliveries_per_second, expected, expected_exact, created_at, changed_at)
  SELECT $1::text::uuid, $2::text::termination_mode, $3, $4, $5, $6, $7::text[], $8::boolean, $9::text[], $10::text::jsonb, $11::text::jsonb,
    $12, to_timestamp(ceil(extract(epoch FROM greatest(least($13::text::timestamptz, c.at), $14::text::timestamptz)))),
    $15::int, $16::bigint, $17::boolean, date_trunc('milliseconds', c.at), date_trunc('milliseconds', c.at)
  FROM clock c
  RETURNING *
), told AS (
  INSERT INTO revocation_events (revocation_id, type, actor_issuer, actor_subject, created_at)
  SELECT id, 'revocation.accepted', actor_issuer, actor_subject, created_at FROM r
)
SELECT ${wireTime('r.cutoff_time')} AS cutoff FROM r`

/**
 * Writes a revocation with its first event. Part of the caller's transaction; the engine finds it from its commit on.
 *
 * @returns its cutoff: `bornBefore` or now, whichever is earlier, by the database's clock, rounded up to a second.
 */
export const insertRevocation = async (tx: RevocationTransaction, asked: NewRevocation): Promise<{ cutoff: string }> => {
  const { reach, filter, actor } = asked
  const [row] = await tx.$queryRawUnsafe<{ cutoff: string }[]>(
    INSERT, asked.id, asked.mode, asked.reason, asked.ticket, actor.issuer, actor.subject, asked.issuers,
    reach === 'instance', reach === 'instance' ? [] : [...reach], JSON.stringify(filter), JSON.stringify(asked.exclude),
    asked.containment, filter.bornBefore, asked.reachesBorn, asked.deliveriesPerSecond, asked.expected, asked.expectedExact,
  )
  if (row === undefined) throw new Error('The revocation was not written')
  return row
}

/** A revocation, whoever asks; null where there is none. */
export const readRevocation = async (db: RevocationTransaction, id: string): Promise<Revocation | null> => {
  const [row] = await db.$queryRawUnsafe<ReadColumns[]>(
    `SELECT ${REVOCATION_COLUMNS}, ${FILTER_COLUMNS} FROM revocations r ${REVOCATION_SUMS} WHERE r.id = $1::text::uuid`, id,
  )
  return row === undefined ? null : revocationOf(row)
}

/** A revocation that the viewer sees; null where there is none, and where there is one that it does not see. */
export const readVisibleRevocation = async (db: RevocationTransaction, { id, viewer }: { id: string; viewer: Viewer }): Promise<Revocation | null> => {
  const [row] = await db.$queryRawUnsafe<ReadColumns[]>(
    `SELECT ${REVOCATION_COLUMNS}, ${FILTER_COLUMNS} FROM revocations r ${REVOCATION_SUMS} WHERE r.id = $6::text::uuid AND ${VISIBLE}`,
    ...viewerParameters(viewer), id,
  )
  return row === undefined ? null : revocationOf(row)
}
