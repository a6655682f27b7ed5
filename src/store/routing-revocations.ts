/**
 * From a revocation's commits to deliveries, set-based: claim, plan, count, mark, in one statement. Log-outs have a claim of
 * their own (`routing.ts`) and never wait behind this one.
 *
 * One at a time plans for a revocation: it holds the revocation's row of `revocation_notifications`, in a statement before,
 * so that what it then reads contains all that the one before it did. By that
 * - deliveries that are paced come in line one after another, whoever plans them;
 * - a user is told once where a receiver is told of users (`sub`). All of a revocation's commits are routed, one router
 *   after the other, and whoever routes the last one that ended a session of the user sees them all ended: unless the user has
 *   other sessions that live, it finds none live and makes the delivery due, which a router before it may have planned as
 *   `waiting`. What is waiting when the revocation is done or cancelled is made due by whoever ends it. So it is told, once,
 *   and after the last end. A session that may have come after that (registered after the revocation was accepted, or a
 *   moment before its user was told) is told by itself.
 *
 * What a steering, or the end, changes at the same moment is brought in line by `notification-steering.ts` and `notification-end.ts`, under the same lock.
 */
import { MOOT_AT, holdReceivers, isHeld } from './deliveries.ts'
import type { Database } from './postgres.ts'
import { countPlanned, holdNotifications } from './notifications.ts'
import type { Routed } from './routing.ts'
import { COMMITS_AT_ONCE, passedOver, webhooksOf } from './routing.ts'

/** Events planned by one statement, where single commits are smaller: a tenth of a second; larger claims are hardly faster. */
const EVENTS_AT_ONCE = 2_500

/** One commit is planned whole, however many it concerns: as long as a statement of the pool may take. */
const TRANSACTION_MS = 30_000

/** Longer than a registration can take: its statements end after three, and a transaction that idles after five. */
const REGISTERING_SECONDS = 10

/** Where a paced delivery comes in line; `w` is the revocation, `m.turn` its place among those of this statement, from 0. */
const PACED = `w.from_at + make_interval(secs => m.turn::float8 / w.rate)`

const due = (paced: boolean): string => (paced ? PACED : 'now()')

// OFFSET 0 and the look-ups by key: see `routing.ts`. A session is looked up where it has a participant, or where there is a
// webhook. Receivers are held before outcomes are, because
// whoever deletes one holds it when it comes to its outcomes.
const route = (paced: boolean): string => `
WITH what AS MATERIALIZED (
  SELECT r.id, r.created_at, r.notifications, r.deliveries_per_second AS rate, greatest(n.paced_to, now()) AS from_at,
    coalesce((r.filter ->> 'includeExpired')::boolean, false) AS include_expired
  FROM revocations r JOIN revocation_notifications n ON n.revocation_id = r.id WHERE r.id = $2::text::uuid
), locked AS MATERIALIZED (
  SELECT id, sessions FROM commits WHERE routed_at IS NULL AND revocation_id = $2::text::uuid
  ORDER BY id LIMIT ${COMMITS_AT_ONCE} FOR NO KEY UPDATE SKIP LOCKED
), claimed AS MATERIALIZED (
  SELECT id FROM (SELECT id, sum(sessions) OVER (ORDER BY id) - sessions AS before FROM locked) l WHERE before < ${EVENTS_AT_ONCE}
), events AS MATERIALIZED (
  SELECT e.session_id, e.commit_id FROM claimed k CROSS JOIN LATERAL (
    SELECT session_id, commit_id FROM session_events WHERE commit_id = k.id AND type = 'session.terminated' OFFSET 0) e
), ended AS MATERIALIZED (
  SELECT s.id, s.issuer, s.user_id, s.resource_owner, e.commit_id, ${MOOT_AT('$1')} AS moot_at
  FROM events e CROSS JOIN LATERAL (SELECT * FROM sessions WHERE id = e.session_id OFFSET 0) s
  WHERE EXISTS (SELECT FROM receivers WHERE type = 'webhook')
), concerned AS MATERIALIZED (
  SELECT r.id AS receiver_id, s.id AS session_id, c.client_id, c.sid, c.sub, s.issuer, e.commit_id, ${MOOT_AT('$1')} AS moot_at, s.user_id,
    CASE WHEN r.subject = 'sub' THEN EXISTS (
      SELECT FROM session_events a WHERE a.session_id = s.id AND a.sequence = 1 AND a.created_at <= w.created_at AND NOT EXISTS (
        SELECT FROM deliveries d WHERE d.receiver_id = r.id AND d.session_id = '' AND d.client_id = c.client_id AND d.sid = $2 || ' ' || c.sub
          AND d.last_outcome IS DISTINCT FROM 'waiting' AND a.created_at > d.created_at - interval '${REGISTERING_SECONDS} seconds')) ELSE false END AS of_user
  FROM what w CROSS JOIN events e
  CROSS JOIN LATERAL (SELECT client_id, sid, sub FROM session_clients WHERE session_id = e.session_id OFFSET 0) c
  CROSS JOIN LATERAL (SELECT * FROM sessions WHERE id = e.session_id OFFSET 0) s
  CROSS JOIN LATERAL (
    SELECT id, subject FROM receivers WHERE issuer = s.issuer AND client_id = c.client_id AND type = 'backchannel_logout'
      AND (resource_owner IS NULL OR resource_owner = s.resource_owner) OFFSET 0) r
  UNION ALL
  SELECT *, NULL, false FROM (${webhooksOf('resource_owner = s.resource_owner')}) h
  UNION ALL
  SELECT *, NULL, false FROM (${webhooksOf('resource_owner IS NULL')}) h
), users AS MATERIALIZED (
  SELECT g.*, d.id AS known, d.state = 'pending' AND d.last_outcome = 'waiting' AS waits, EXISTS (
      SELECT FROM what w CROSS JOIN unnest(g.user_ids) AS u(id) CROSS JOIN LATERAL (
        SELECT FROM sessions WHERE issuer = g.issuer AND user_id = u.id AND state = 'active' AND (w.include_expired OR expires_at > now()) LIMIT 1) s
    ) AS lives
  FROM (
    SELECT receiver_id, client_id, sub, min(issuer) AS issuer, array_agg(DISTINCT user_id) AS user_ids,
      max(commit_id) AS commit_id, max(moot_at) AS moot_at
    FROM concerned WHERE of_user GROUP BY receiver_id, client_id, sub
  ) g LEFT JOIN LATERAL (
    SELECT id, state, last_outcome FROM deliveries
    WHERE receiver_id = g.receiver_id AND session_id = '' AND client_id = g.client_id AND sid = $2 || ' ' || g.sub OFFSET 0) d ON true
), messages AS MATERIALIZED (
  SELECT m.*${paced ? ', count(*) FILTER (WHERE NOT waits) OVER (ORDER BY session_id, receiver_id ROWS UNBOUNDED PRECEDING) - 1 AS turn' : ''}
  FROM (
    SELECT NULL::bigint AS known, receiver_id, session_id, client_id, sid, sub, issuer, commit_id, moot_at, false AS of_user, false AS waits
    FROM concerned WHERE NOT of_user
    UNION ALL
    SELECT known, receiver_id, '', client_id, $2 || ' ' || sub, sub, issuer, commit_id, moot_at, true, lives
    FROM users WHERE known IS NULL OR (waits AND NOT lives)
  ) m
), ${holdReceivers('messages')}, planned AS (
  INSERT INTO deliveries (receiver_id, session_id, client_id, sid, sub, issuer, commit_id, moot_at, of_user, revocation_id,
    state, due_at, ${paced ? 'held_until, ' : ''}done_at, last_outcome)
  SELECT m.receiver_id, m.session_id, m.client_id, m.sid, m.sub, m.issuer, m.commit_id, m.moot_at, m.of_user, w.id,
    CASE WHEN w.notifications = 'cancelled' THEN 'failed' ELSE 'pending' END::delivery_state,
    CASE WHEN w.notifications = 'paused' OR m.waits THEN 'infinity' ELSE ${due(paced)} END,
    ${paced ? `${PACED}, ` : ''}CASE WHEN w.notifications = 'cancelled' THEN now() END,
    CASE WHEN w.notifications = 'cancelled' THEN 'cancelled' WHEN m.waits THEN 'waiting' END
  FROM what w CROSS JOIN messages m WHERE m.known IS NULL AND ${isHeld}
  ORDER BY m.session_id, m.receiver_id
  ON CONFLICT (receiver_id, session_id, client_id, sid) DO NOTHING
  RETURNING receiver_id, state, due_at
), released AS (
  UPDATE deliveries d SET last_outcome = NULL, due_at = CASE WHEN w.notifications = 'paused' THEN 'infinity' ELSE ${due(paced)} END, held_until = ${due(paced)}
  FROM what w CROSS JOIN messages m
  WHERE d.id = m.known AND d.id = ANY(ARRAY(SELECT known FROM messages WHERE known IS NOT NULL)) AND d.state::text = 'pending'
  RETURNING d.receiver_id, d.due_at
), ${countPlanned('$2::text::uuid')}, ${paced ? `moved AS (
  UPDATE revocation_notifications n SET paced_to = w.from_at + make_interval(secs => (SELECT count(*) FROM messages WHERE NOT waits)::float8 / w.rate)
  FROM what w WHERE n.revocation_id = w.id AND w.notifications = 'running'
), ` : ''}marked AS (
  UPDATE commits SET routed_at = clock_timestamp() FROM claimed k WHERE commits.id = k.id
)
SELECT (SELECT count(*) FROM claimed)::int AS commits,
  (SELECT count(*) = ${COMMITS_AT_ONCE} FROM locked) OR (SELECT count(*) FROM locked) > (SELECT count(*) FROM claimed) AS more,
  ${passedOver('revocation_id = $2::text::uuid')},
  (SELECT count(*) FROM planned)::int AS deliveries,
  ARRAY(SELECT receiver_id FROM planned WHERE due_at < 'infinity' AND state = 'pending' UNION SELECT receiver_id FROM released WHERE due_at < 'infinity') AS "receiverIds"`

const ROUTE = route(false)
const ROUTE_PACED = route(true)

/**
 * Hands on one slice of a revocation's unrouted commits. May be repeated and run by many at once.
 *
 * @returns null where someone else plans, holds or releases for this revocation at this moment. */
export const routeRevocation = (
  db: Database,
  { revocationId, maxTokenLifetimeSeconds }: { revocationId: string; maxTokenLifetimeSeconds: number },
): Promise<Routed | null> =>
  db.$transaction(async (tx) => {
    const held = await holdNotifications(tx, revocationId)
    if (held === null) return null
    const [row] = await tx.$queryRawUnsafe<Routed[]>(held.paced ? ROUTE_PACED : ROUTE, maxTokenLifetimeSeconds, revocationId)
    if (row === undefined) throw new Error('Routing returned no row')
    return row
  }, { timeout: TRANSACTION_MS })
