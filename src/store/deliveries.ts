/**
 * Deliveries as others see them: planned for a participant that came late, counted for a session, listed for a
 * receiver. The drain's own statements are in `drains.ts`, planning for whole commits in `routing.ts`.
 */
import type { DeliveryCounts, DeliveryState, Participant, webhookEvents } from '../model.ts'
import type { Database } from './postgres.ts'
import { getReceiver } from './receivers.ts'
import type { Within } from './receivers.ts'

/** What runs one statement: the database or a transaction on it. */
export type Statements = Pick<Database, '$queryRawUnsafe'>

/** Deliveries are moot from when the session and all its tokens have expired by themselves. `s` is the session. */
export const MOOT_AT = (maxTokenLifetimeSeconds: string): string =>
  `greatest(s.expires_at, s.terminated_at + make_interval(secs => ${maxTokenLifetimeSeconds}::float8))`

/**
 * Holds the receivers of `rows` to the end of the transaction, in the order of their ids: what is planned for them goes when
 * they go. One that is deleted meanwhile is not among them.
 */
export const holdReceivers = (rows: string): string => `receiver AS MATERIALIZED (
  SELECT id FROM receivers WHERE id = ANY(ARRAY(SELECT DISTINCT receiver_id FROM ${rows})) ORDER BY id FOR KEY SHARE
)`
/** Of a row with a `receiver_id`. In this form it is a look-up in a hash, whatever Postgres guesses of the numbers. */
export const isHeld = '(receiver_id IN (SELECT id FROM receiver)) IS TRUE'

/** Where the horizon of a delivery begins: anew where it is sent again by hand, or was paced or held back. `d` is it. */
export const HORIZON_FROM = 'greatest(coalesce(d.redelivered_at, d.created_at), d.held_until)'

// Of a revocation that is steered at this moment, either the delivery is seen by what that does, or it does as steered: so
// the revocation's row is shared.
const PLAN_LATE = `
WITH ended AS MATERIALIZED (
  SELECT s.id, s.issuer, s.resource_owner, e.commit_id, e.revocation_id, ${MOOT_AT('$5')} AS moot_at
  FROM sessions s LEFT JOIN session_events e ON e.session_id = s.id AND e.type = 'session.terminated'
  WHERE s.id = $1 AND s.state = 'terminated'
), steered AS MATERIALIZED (
  SELECT notifications FROM revocations WHERE id = (SELECT revocation_id FROM ended) FOR SHARE
), receiver AS MATERIALIZED (
  SELECT r.id FROM ended s JOIN receivers r ON r.type = 'backchannel_logout' AND r.issuer = s.issuer AND r.client_id = $2
    AND (r.resource_owner IS NULL OR r.resource_owner = s.resource_owner)
  ORDER BY r.id FOR KEY SHARE OF r
), planned AS (
  INSERT INTO deliveries (receiver_id, session_id, client_id, sid, sub, issuer, commit_id, moot_at, revocation_id, state, due_at, done_at, last_outcome)
  SELECT r.id, s.id, $2, $3, $4, s.issuer, s.commit_id, s.moot_at, s.revocation_id,
    CASE WHEN v.notifications = 'cancelled' THEN 'failed' ELSE 'pending' END::delivery_state,
    CASE WHEN v.notifications = 'paused' THEN 'infinity' ELSE clock_timestamp() END,
    CASE WHEN v.notifications = 'cancelled' THEN clock_timestamp() END, CASE WHEN v.notifications = 'cancelled' THEN 'cancelled' END
  FROM ended s LEFT JOIN steered v ON true CROSS JOIN receiver r
  ON CONFLICT (receiver_id, session_id, client_id, sid) DO NOTHING
  RETURNING receiver_id, state, revocation_id
), counted AS (
  INSERT INTO revocation_outcomes AS o (revocation_id, receiver_id, total, pending, failed)
  SELECT revocation_id, receiver_id, 1, (state = 'pending')::int, (state = 'failed')::int
  FROM planned WHERE revocation_id IS NOT NULL ORDER BY receiver_id
  ON CONFLICT (revocation_id, receiver_id) DO UPDATE
  SET total = o.total + 1, pending = o.pending + excluded.pending, failed = o.failed + excluded.failed
)
SELECT receiver_id AS id FROM planned`

/**
 * Plans that a participant of a session that is already terminated is told, and returns the receivers to wake once
 * the caller's transaction has committed. May be repeated: a receiver is told of one participant once. Plans nothing
 * where the session is live. The caller must hold the session's row, or have read it terminated: a session that ends
 * while a participant is being added must be seen by one of the two.
 */
export const planLateParticipant = async (
  tx: Statements,
  late: { sessionId: string; participant: Participant; maxTokenLifetimeSeconds: number },
): Promise<string[]> => {
  const { clientId, sid, sub } = late.participant
  const rows = await tx.$queryRawUnsafe<{ id: string }[]>(PLAN_LATE, late.sessionId, clientId, sid, sub, late.maxTokenLifetimeSeconds)
  return rows.map(({ id }) => id)
}

export interface Settled {
  /** True once the termination's deliveries are planned, so that the counts are whole. */
  readonly routed: boolean
  readonly counts: DeliveryCounts
}

const READ_SETTLED = `
SELECT e.session_id AS id, (c.id IS NULL OR c.routed_at IS NOT NULL) AS routed, n.total, n.acknowledged, n.pending, n.failed, n.moot
FROM session_events e LEFT JOIN commits c ON c.id = e.commit_id
CROSS JOIN LATERAL (
  SELECT count(*)::int AS total,
    count(*) FILTER (WHERE d.state = 'acknowledged')::int AS acknowledged, count(*) FILTER (WHERE d.state = 'pending')::int AS pending,
    count(*) FILTER (WHERE d.state = 'failed')::int AS failed, count(*) FILTER (WHERE d.state = 'moot')::int AS moot
  FROM deliveries d WHERE d.session_id = e.session_id) n
WHERE e.session_id = ANY($1::text[]) AND e.type = 'session.terminated'`

/** How far these sessions' terminations have been handed on, in one query. A session that is not terminated is absent. */
export const readSettled = async (db: Statements, sessionIds: readonly string[]): Promise<Map<string, Settled>> => {
  const rows = await db.$queryRawUnsafe<({ id: string; routed: boolean } & DeliveryCounts)[]>(READ_SETTLED, sessionIds)
  return new Map(rows.map(({ id, routed, ...counts }) => [id, { routed, counts }]))
}

/** One delivery as its row tells it. Times are the database's. */
export interface DeliveryRow {
  readonly id: string
  readonly receiverId: string
  readonly sessionId: string
  readonly clientId: string
  readonly sid: string
  readonly sub: string
  readonly issuer: string
  /** What is told; of `revocation.completed`, and of a user, there is no session (''). */
  readonly event: (typeof webhookEvents)[number]
  /** The revocation that it is part of, or null. */
  readonly revocationId: string | null
  readonly state: DeliveryState
  readonly attempts: number
  readonly createdAt: Date
  /** Null: it is held back. */
  readonly dueAt: Date | null
  readonly mootAt: Date
  /** When it was last made due again by hand; its horizon begins there. */
  readonly redeliveredAt: Date | null
  readonly doneAt: Date | null
  /** A word of `delivery/outcome.ts`. */
  readonly lastOutcome: string | null
  readonly lastStatus: number | null
  readonly lastAnswer: string | null
  readonly lastTriedAt: Date | null
}

const deliveryStates: readonly DeliveryState[] = ['pending', 'acknowledged', 'failed', 'moot']

/** What a `DeliveryRow` is read from; `d` is the delivery. */
export const DELIVERY_COLUMNS = `d.id::text AS id, d.receiver_id AS "receiverId", d.session_id AS "sessionId", d.client_id AS "clientId",
  d.sid, d.sub, d.issuer, d.event, d.revocation_id::text AS "revocationId", d.state::text AS state, d.attempts, d.created_at AS "createdAt",
  CASE WHEN d.due_at < 'infinity' THEN d.due_at END AS "dueAt", d.moot_at AS "mootAt",
  d.redelivered_at AS "redeliveredAt", d.done_at AS "doneAt", d.last_outcome AS "lastOutcome", d.last_status AS "lastStatus",
  d.last_answer AS "lastAnswer", d.last_tried_at AS "lastTriedAt"`

// Each state is read from its own stretch of deliveries_by_state, so a page costs a page whatever the history.
const LIST = `
SELECT ${DELIVERY_COLUMNS}
FROM unnest($2::text[]::delivery_state[]) AS wanted(state)
CROSS JOIN LATERAL (
  SELECT * FROM deliveries WHERE receiver_id = $1 AND state = wanted.state AND id < $3::text::bigint ORDER BY id DESC LIMIT $4) d
ORDER BY d.id DESC LIMIT $4`

const LAST_ID = '9223372036854775807'

/**
 * Up to `limit` deliveries of one receiver, newest first, before the delivery `before` (null: from the newest), in
 * one state or in all.
 *
 * @throws CurfewError receiver_not_found for an unknown receiver and for one beyond the caller's reach.
 */
export const listDeliveries = async (
  db: Database,
  asked: Within & { receiverId: string; state: DeliveryState | null; before: string | null; limit: number },
): Promise<DeliveryRow[]> => {
  await getReceiver(db, { id: asked.receiverId, reach: asked.reach, issuers: asked.issuers })
  const states = asked.state === null ? deliveryStates : [asked.state]
  return db.$queryRawUnsafe<DeliveryRow[]>(LIST, asked.receiverId, states, asked.before ?? LAST_ID, asked.limit)
}
