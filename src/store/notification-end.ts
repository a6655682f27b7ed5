/**
 * Hands on a revocation's end, when its terminations are done or cancelled and all of them are planned: users who were waited
 * for are told, and of one that is done those webhooks are told, once, that ask for `revocation.completed`.
 *
 * Under the lock on its notifications, which remember that it was handed on. May be repeated.
 */
import type { Database } from './postgres.ts'
import { IN_LINE, MOVE_ON, PACE, countPlanned, underLock } from './notifications.ts'

/** Users told by one statement: some hundred milliseconds. */
const AT_ONCE = 5_000

// Found by deliveries_held, so it costs those who are held alone.
const TELL_WAITING = `
WITH what AS MATERIALIZED (${PACE}
), held AS MATERIALIZED (
  SELECT l.id, row_number() OVER (ORDER BY l.id) AS n FROM (
    SELECT id FROM deliveries WHERE revocation_id = $1::text::uuid AND due_at = 'infinity' AND state = 'pending' AND last_outcome = 'waiting'
    ORDER BY id LIMIT ${AT_ONCE} FOR NO KEY UPDATE) l
), changed AS (
  UPDATE deliveries d SET last_outcome = NULL, held_until = ${IN_LINE}, due_at = CASE WHEN $2 = 'running' THEN ${IN_LINE} ELSE 'infinity' END
  FROM held h CROSS JOIN what w WHERE d.id = h.id AND d.id = ANY(ARRAY(SELECT id FROM held))
  RETURNING d.receiver_id, d.due_at
), moved AS (${MOVE_ON} AND $2 = 'running')
SELECT (SELECT count(*) = ${AT_ONCE} FROM held) AS more, ARRAY(SELECT DISTINCT receiver_id FROM changed WHERE due_at < 'infinity') AS "receiverIds"`

// A webhook of an organization is told of revocations that reach no other, so that it sees no other's count.
const END = `
WITH what AS MATERIALIZED (
  SELECT r.id, r.issuers, CASE WHEN jsonb_array_length(coalesce(r.filter -> 'resourceOwners', '[]')) > 0 THEN ARRAY(
      SELECT DISTINCT o FROM jsonb_array_elements_text(r.filter -> 'resourceOwners') AS f(o) WHERE r.instance OR o = ANY(r.organizations))
    ELSE r.organizations END AS organizations
  FROM revocations r WHERE r.id = $1::text::uuid AND r.state = 'done'
), receiver AS MATERIALIZED (
  SELECT c.id, c.issuer FROM what w CROSS JOIN receivers c
  WHERE c.type = 'webhook' AND 'revocation.completed' = ANY(c.events) AND c.issuer = ANY(w.issuers)
    AND (c.resource_owner IS NULL OR w.organizations = ARRAY[c.resource_owner])
  ORDER BY c.id FOR KEY SHARE OF c
), planned AS (
  INSERT INTO deliveries (receiver_id, session_id, client_id, sid, sub, issuer, moot_at, revocation_id, event, state, due_at, done_at, last_outcome)
  SELECT c.id, '', '', w.id::text, '', c.issuer, now() + interval '10 years', w.id, 'revocation.completed',
    CASE WHEN $2 = 'cancelled' THEN 'failed' ELSE 'pending' END::delivery_state, CASE WHEN $2 = 'paused' THEN 'infinity' ELSE now() END,
    CASE WHEN $2 = 'cancelled' THEN now() END, CASE WHEN $2 = 'cancelled' THEN 'cancelled' END
  FROM what w CROSS JOIN receiver c
  ON CONFLICT (receiver_id, session_id, client_id, sid) DO NOTHING
  RETURNING receiver_id, state
), ${countPlanned('$1::text::uuid')}, ended AS (
  UPDATE revocation_notifications SET ended_at = now() WHERE revocation_id = $1::text::uuid
)
SELECT false AS more, ARRAY(SELECT receiver_id FROM planned WHERE $2 = 'running') AS "receiverIds"`

export interface EndingStep {
  /** `later`: something of it is still to be planned or enforced. */
  readonly came: 'done' | 'more' | 'later'
  /** Who has something due by it. */
  readonly receiverIds: readonly string[]
}

/** One step; nothing where its terminations go on. @returns null where someone else plans, holds or releases for it. */
export const endNotifications = (db: Database, revocationId: string): Promise<EndingStep | null> =>
  underLock<EndingStep>(db, revocationId, async (tx, { state, notifications, ended, unrouted, enforced }) => {
    if (ended || (state !== 'done' && state !== 'cancelled')) return { came: 'done', receiverIds: [] }
    if (unrouted) return { came: 'later', receiverIds: [] }
    const [told] = await tx.$queryRawUnsafe<{ more: boolean; receiverIds: string[] }[]>(TELL_WAITING, revocationId, notifications)
    if (told === undefined) throw new Error('A step returned no row')
    if (told.more) return { came: 'more', receiverIds: told.receiverIds }
    if (state === 'done' && !enforced) return { came: 'later', receiverIds: told.receiverIds }
    const [last] = await tx.$queryRawUnsafe<{ receiverIds: string[] }[]>(END, revocationId, notifications)
    return { came: 'done', receiverIds: [...told.receiverIds, ...(last?.receiverIds ?? [])] }
  })
