/**
 * The drain's statements. One drain at a time holds a receiver, across all processes, by the lease in the receiver's
 * row; so a delivery needs no lease of its own, and the claim writes nothing.
 *
 * If a process dies, its lease runs out and another drain finds the same deliveries due. If a process only stood still,
 * two may send the same delivery; both then record against the number of attempts that they saw, so an attempt
 * is recorded once, and an acknowledgement always counts.
 */
import type { DeliveryState, SubjectForm } from '../model.ts'
import { HORIZON_FROM } from './deliveries.ts'
import type { Database } from './postgres.ts'
import { COMPLETION, TERMINATION } from './told.ts'
import type { ToldCompletion, ToldTermination } from './told.ts'
import { LIVE_SECRETS } from './webhook-secrets.ts'

/** A receiver whose drain we hold. */
export interface DrainedReceiver {
  readonly id: string
  readonly type: string
  readonly url: string
  readonly clientId: string | null
  readonly subject: SubjectForm
  readonly alg: string
  /** Encrypted, the newest first. */
  readonly secrets: readonly string[]
  readonly maxConcurrency: number
  readonly ratePerSecond: number | null
  readonly consecutiveFailures: number
  readonly succeededBefore: boolean
  /** Changes with every change of the settings. */
  readonly version: string
}

const TAKE = `
UPDATE receivers r SET drained_by = $2::text::uuid, drained_until = now() + make_interval(secs => $3::float8 / 1000)
WHERE r.id = $1 AND r.enabled
  AND (r.drained_until IS NULL OR r.drained_until <= now()) AND (r.broken_until IS NULL OR r.broken_until <= now())
  AND (EXISTS (SELECT FROM deliveries d WHERE d.receiver_id = $1 AND d.state = 'pending' AND d.revocation_id IS NULL AND d.due_at <= now())
    OR EXISTS (SELECT FROM deliveries d WHERE d.receiver_id = $1 AND d.state = 'pending' AND d.revocation_id IS NOT NULL AND d.due_at <= now()))
RETURNING r.id, r.type::text AS type, r.url, r.client_id AS "clientId", r.subject::text AS subject, r.alg,
  ${LIVE_SECRETS} AS secrets, r.max_concurrency AS "maxConcurrency", r.rate_per_second AS "ratePerSecond", r.consecutive_failures AS "consecutiveFailures",
  r.last_success_at IS NOT NULL AS "succeededBefore", r.updated_at::text AS version`

/** Takes the drain of a receiver that is on, not broken, held by nobody and has something due; else null. */
export const takeDrain = async (
  db: Database,
  { receiverId, holder, leaseMs }: { receiverId: string; holder: string; leaseMs: number },
): Promise<DrainedReceiver | null> => {
  const [row] = await db.$queryRawUnsafe<DrainedReceiver[]>(TAKE, receiverId, holder, leaseMs)
  return row ?? null
}

export interface DueDelivery {
  readonly id: string
  readonly sessionId: string
  readonly clientId: string
  readonly sid: string
  readonly sub: string
  readonly issuer: string
  /** It stands for all sessions that a revocation ended of this user. */
  readonly ofUser: boolean
  /** It is one of a revocation's, and waits for those that are none. */
  readonly ofRevocation: boolean
  /** Read where asked for; null also where the event is gone. */
  readonly termination: ToldTermination | null
  /** Read where asked for, of a revocation that is completed. */
  readonly completion: ToldCompletion | null
  readonly attempts: number
  /** Nothing is left to end: it is not sent. */
  readonly moot: boolean
  /** Since the session's end was committed, when read. */
  readonly ageMs: number
  readonly dueAt: string
}

/** How far a drain has read: behind it lie only what it has in hand, what is done, and what came to be due late. */
export type DrainCursor = Pick<DueDelivery, 'dueAt' | 'id'>

const claim = ({ which, inHand, after, limit, told }: { which: string; inHand: string; after: [string, string]; limit: string; told: string }): string => `
(SELECT d.id::text AS id, d.session_id AS "sessionId", d.client_id AS "clientId", d.sid, d.sub, d.issuer, d.attempts,
  d.of_user AS "ofUser", d.revocation_id IS NOT NULL AS "ofRevocation", ${told},
  d.moot_at <= now() AS moot,
  (extract(epoch FROM now() - coalesce((SELECT c.committed_at FROM commits c WHERE c.id = d.commit_id), d.created_at)) * 1000)::float8 AS "ageMs",
  d.due_at::text AS "dueAt"
FROM deliveries d
WHERE d.receiver_id = $1 AND d.state = 'pending' AND d.revocation_id ${which} AND d.due_at <= now() AND d.id <> ALL(${inHand}::text[]::bigint[])
  AND (d.due_at, d.id) > (coalesce(${after[0]}::text::timestamptz, '-infinity'), coalesce(${after[1]}::text::bigint, 0))
ORDER BY d.due_at, d.id LIMIT ${limit})`

// Log-outs first: Postgres runs the parts one after the other, and the second only while there is room.
const claims = (told: string): string => `
${claim({ which: 'IS NULL', inHand: '$2', after: ['$4', '$5'], limit: '$3', told })}
UNION ALL
${claim({ which: 'IS NOT NULL', inHand: '$6', after: ['$7', '$8'], limit: '$9::int', told })}
LIMIT $3`
const CLAIM = claims('NULL::json AS termination, NULL::json AS completion')
const CLAIM_FOR_WEBHOOK = claims(`${TERMINATION} AS termination, ${COMPLETION} AS completion`)

/** How one line of what is due is read on: after the cursor, and without what is in hand. */
interface LineAsked {
  readonly inHand: readonly string[]
  readonly after: DrainCursor | null
}

/**
 * Reads what is due next, log-outs before what revocations ended; each after its cursor, which also spares it the index
 * entries of what is done already, and without what the drain has in hand, where that may lie after the cursor. Fewer than
 * `limit` means that there is no more now. Relies on deliveries_due, deliveries_of_revocations_due and on the caller's holding
 * the drain.
 *
 * @param asked.limit of both together.
 */
export const readDue = (
  db: Database,
  asked: LineAsked & { receiverId: string; limit: number; ofRevocations: LineAsked & { limit: number }; forWebhook: boolean },
): Promise<DueDelivery[]> => {
  const { receiverId, inHand, after, limit, ofRevocations, forWebhook } = asked
  return db.$queryRawUnsafe<DueDelivery[]>(
    forWebhook ? CLAIM_FOR_WEBHOOK : CLAIM, receiverId, inHand, limit, after?.dueAt ?? null, after?.id ?? null,
    ofRevocations.inHand, ofRevocations.after?.dueAt ?? null, ofRevocations.after?.id ?? null, ofRevocations.limit,
  )
}

/** What came of one delivery, ready to be written. */
export interface RecordedOutcome {
  readonly id: string
  /** Attempts seen when it was read. */
  readonly attempts: number
  /** False where nothing was sent (moot): the attempt does not count. */
  readonly tried: boolean
  readonly state: DeliveryState
  /** For `pending`: when it is due again. */
  readonly afterMs: number
  readonly outcome: string
  readonly status: number | null
  readonly answer: string | null
}

/** The receiver's health, as the drain knows it. */
export interface DrainHealth {
  readonly consecutiveFailures: number
  /** How long the breaker stays open from now, or null: closed. */
  readonly brokenForMs: number | null
  readonly succeeded: boolean
  readonly failed: boolean
  /** The receiver says it is gone: switch it off. */
  readonly gone: boolean
}

/** A retry after the horizon is a dead letter. The horizon of what was sent again by hand begins there. */
const STATE = `CASE WHEN o.state = 'pending' AND ${HORIZON_FROM} + make_interval(secs => $11::float8) <= now() THEN 'failed' ELSE o.state END`

// Receivers before deliveries, as everywhere; `told` depends on `held`, so the order is kept. A retry is due at the
// horizon at the latest, so that the last attempt is made there; what its revocation holds back meanwhile stays held, and
// what was cancelled while it was under way counts as told where it was acknowledged. The list of ids, and the state as text, leave Postgres
// the primary key alone to find the rows by: the join would read every delivery, the state every pending one.
const RECORD = `
WITH outcome AS MATERIALIZED (
  SELECT * FROM json_to_recordset($1::text::json) AS o(
    id bigint, attempts int, tried boolean, state delivery_state, "afterMs" float8, outcome text, status int, answer text)
), held AS MATERIALIZED (
  UPDATE receivers r SET
    drained_until = now() + make_interval(secs => $4::float8 / 1000),
    consecutive_failures = CASE WHEN r.updated_at::text = $5 THEN $6::int ELSE r.consecutive_failures END,
    broken_until = CASE WHEN r.updated_at::text <> $5 OR ($7::float8 IS NOT NULL AND r.broken_until > now()) THEN r.broken_until
      WHEN $7::float8 IS NOT NULL THEN now() + make_interval(secs => $7::float8 / 1000) END,
    last_success_at = CASE WHEN $8::boolean THEN now() ELSE r.last_success_at END,
    last_failure_at = CASE WHEN $9::boolean THEN now() ELSE r.last_failure_at END,
    enabled = r.enabled AND NOT $10::boolean,
    gone_at = CASE WHEN $10::boolean THEN now() ELSE r.gone_at END
  WHERE r.id = $2 AND r.drained_by = $3::text::uuid
  RETURNING r.enabled AND r.updated_at::text = $5 AS same
), told AS (
  UPDATE deliveries d SET
    attempts = d.attempts + o.tried::int,
    state = ${STATE},
    due_at = CASE WHEN d.due_at < 'infinity' THEN
      least(now() + make_interval(secs => o."afterMs" / 1000), greatest(now(), ${HORIZON_FROM} + make_interval(secs => $11::float8))) ELSE d.due_at END,
    done_at = CASE WHEN ${STATE} <> 'pending' THEN now() END,
    last_outcome = o.outcome, last_status = o.status, last_answer = o.answer,
    last_tried_at = CASE WHEN o.tried THEN now() ELSE d.last_tried_at END
  FROM outcome o
  WHERE d.id = o.id AND d.id = ANY($12::text[]::bigint[])
    AND (d.state::text = 'pending' AND (d.attempts = o.attempts OR o.state = 'acknowledged')
      OR o.state = 'acknowledged' AND d.state::text = 'failed' AND d.last_outcome = 'cancelled')
    AND (SELECT count(*) FROM held) >= 0
  RETURNING d.state
)
SELECT (SELECT same FROM held) AS same, (SELECT count(*) FROM told)::int AS recorded,
  (SELECT count(*) FROM told WHERE state = 'failed')::int AS failed`

export interface Recorded {
  /** Null: the drain is no longer ours. False: the receiver was changed or switched off. */
  readonly same: boolean | null
  readonly recorded: number
  /** Of these, dead letters. */
  readonly failed: number
}

/**
 * Records outcomes and the receiver's health, and prolongs the lease. May be repeated: an attempt is recorded once.
 * Outcomes are recorded also where the lease has passed to another drain; health then is not.
 */
export const recordOutcomes = async (
  db: Database,
  record: {
    receiverId: string
    holder: string
    version: string
    leaseMs: number
    horizonSeconds: number
    health: DrainHealth
    outcomes: readonly RecordedOutcome[]
  },
): Promise<Recorded> => {
  const { consecutiveFailures, brokenForMs, succeeded, failed, gone } = record.health
  const [row] = await db.$queryRawUnsafe<Recorded[]>(
    RECORD, JSON.stringify(record.outcomes), record.receiverId, record.holder, record.leaseMs, record.version,
    consecutiveFailures, brokenForMs, succeeded, failed, gone, record.horizonSeconds, record.outcomes.map(({ id }) => id),
  )
  if (row === undefined) throw new Error('Recording returned no row')
  return row
}

const RELEASE = `
UPDATE receivers SET drained_by = NULL, drained_until = CASE WHEN $3::float8 > 0 THEN now() + make_interval(secs => $3::float8 / 1000) END
WHERE id = $1 AND drained_by = $2::text::uuid`

/**
 * Gives the drain back, `restMs` from now: a receiver with a rate of its own is then not told too soon by the next drain
 * either, whichever process makes it. Harmless where the drain is no longer ours.
 */
export const releaseDrain = async (
  db: Database,
  { receiverId, holder, restMs = 0 }: { receiverId: string; holder: string; restMs?: number },
): Promise<void> => {
  await db.$executeRawUnsafe(RELEASE, receiverId, holder, restMs)
}
