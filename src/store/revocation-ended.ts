/**
 * The sessions that a revocation ended, page by page, with those who took part in them and what was delivered. Reads alone;
 * a page is bounded, whatever the size of the whole.
 *
 * A page is one row of lists: a row for each would cost more than reading it. Everything is looked up by its key
 * (OFFSET 0), as in routing.
 */
import type { Database } from './postgres.ts'
import { wireTime } from './wire-time.ts'

type Reads = Pick<Database, '$queryRawUnsafe'>

export interface EndedParticipant {
  readonly clientId: string
  readonly sid: string
  readonly sub: string
}

export interface EndedDelivery extends EndedParticipant {
  readonly receiverId: string
  readonly state: string
  readonly outcome: string | null
  /** When it was done, or else tried last; RFC 3339 UTC as all here. */
  readonly time: string | null
}

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
  /** How often it was tried after its end: a 64-bit number, or null where it was not. */
  readonly attempts: string | null
  readonly lastAttemptTime: string | null
  readonly participants: readonly EndedParticipant[]
  /** Of this session by its own name; a user that is told as a whole is found by `readToldOfUsers`. */
  readonly deliveries: readonly EndedDelivery[]
}

/** Commits of few sessions; of larger ones, as many as have so many sessions together, and one at the least. */
const COMMITS_AT_ONCE = 200
/** Some tens of milliseconds, and less than a megabyte. */
const SESSIONS_AT_ONCE = 1_000

const TOLD = `d.receiver_id, d.client_id, d.sid, d.sub, d.state, d.last_outcome, ${wireTime('coalesce(d.done_at, d.last_tried_at)')}`

const ENDED = `
WITH next AS MATERIALIZED (
  SELECT id, sessions, routed_at IS NOT NULL AS routed FROM commits
  WHERE revocation_id = $1::text::uuid AND id > $2::text::bigint ORDER BY id LIMIT ${COMMITS_AT_ONCE}
), page AS MATERIALIZED (
  SELECT * FROM (SELECT *, sum(sessions) OVER (ORDER BY id) - sessions AS before FROM next) s WHERE before < ${SESSIONS_AT_ONCE}
), ended AS MATERIALIZED (
  SELECT k.id AS commit_id, k.routed, e.session_id, e.created_at FROM page k CROSS JOIN LATERAL (
    SELECT session_id, created_at FROM session_events WHERE commit_id = k.id AND type = 'session.terminated' OFFSET 0) e
)
SELECT (
    SELECT json_agg(json_build_array(e.session_id, e.commit_id::text, e.routed, e.created_at < clock_timestamp() - make_interval(secs => $3::float8),
      ${wireTime('e.created_at')}, s.issuer, s.user_id, s.resource_owner, ${wireTime('s.born')}, a.uses::text, ${wireTime('a.last_at')}))
    FROM ended e
    LEFT JOIN LATERAL (SELECT issuer, user_id, resource_owner, born FROM sessions WHERE id = e.session_id OFFSET 0) s ON true
    LEFT JOIN LATERAL (
      SELECT uses, last_at FROM dead_uses WHERE target = 'session' AND target_id = e.session_id AND issuer = s.issuer OFFSET 0) a ON true
  ) AS sessions, (
    SELECT json_agg(json_build_array(e.session_id, c.client_id, c.sid, c.sub)) FROM ended e
    CROSS JOIN LATERAL (SELECT client_id, sid, sub FROM session_clients WHERE session_id = e.session_id OFFSET 0) c
  ) AS participants, (
    SELECT json_agg(json_build_array(e.session_id, ${TOLD})) FROM ended e
    CROSS JOIN LATERAL (SELECT * FROM deliveries WHERE session_id = e.session_id OFFSET 0) d
  ) AS deliveries`

type Listed<Row> = readonly Row[] | null
type Told = [receiverId: string, clientId: string, sid: string, sub: string, state: string, outcome: string | null, time: string | null]

interface Page {
  readonly sessions: Listed<[
    id: string, commit: string, routed: boolean, old: boolean, terminated: string, issuer: string | null, userId: string | null,
    resourceOwner: string | null, born: string | null, attempts: string | null, lastAttemptTime: string | null,
  ]>
  readonly participants: Listed<[id: string, clientId: string, sid: string, sub: string]>
  readonly deliveries: Listed<[id: string, ...Told]>
}

/**
 * The next sessions that the revocation ended, in the order of commits; none means there are no more. A revocation that
 * still runs may commit behind a reader.
 *
 * @param after the commit of the last row; '0' for the first page. @param retentionSeconds how long deliveries stay.
 */
export const readEnded = async (
  db: Reads,
  { id, after, retentionSeconds }: { id: string; after: string; retentionSeconds: number },
): Promise<EndedRow[]> => {
  const [page] = await db.$queryRawUnsafe<Page[]>(ENDED, id, after, retentionSeconds)
  if (page === undefined) throw new Error('The page was not read')
  const participants = new Map<string, EndedParticipant[]>()
  for (const [session, clientId, sid, sub] of page.participants ?? []) add(participants, session, { clientId, sid, sub })
  const deliveries = new Map<string, EndedDelivery[]>()
  for (const [session, ...told] of page.deliveries ?? []) add(deliveries, session, deliveryOf(told))
  return (page.sessions ?? [])
    .map(([session, commit, routed, old, terminated, issuer, userId, resourceOwner, born, attempts, lastAttemptTime]): EndedRow => ({
      id: session, commit, routed, old, terminated, issuer, userId, resourceOwner, born, attempts, lastAttemptTime,
      participants: (participants.get(session) ?? []).toSorted((a, b) => compare(a.clientId, b.clientId) || compare(a.sid, b.sid)),
      deliveries: (deliveries.get(session) ?? []).toSorted((a, b) => compare(a.receiverId, b.receiverId) || compare(a.sid, b.sid)),
    }))
    .sort((a, b) => Number(BigInt(a.commit) - BigInt(b.commit)) || compare(a.id, b.id))
}

/** A user of a client, who may be told as a whole. */
export interface UserAtReceiver {
  readonly receiverId: string
  readonly clientId: string
  readonly sub: string
}

/** Their deliveries in this revocation, where there are any; a page's worth at once. */
export const readToldOfUsers = async (
  db: Reads,
  { id, users }: { id: string; users: readonly UserAtReceiver[] },
): Promise<EndedDelivery[]> => {
  const [row] = await db.$queryRawUnsafe<{ told: Listed<Told> }[]>(
    `SELECT json_agg(json_build_array(${TOLD})) AS told
     FROM (SELECT DISTINCT * FROM unnest($2::text[], $3::text[], $4::text[])) AS u(receiver_id, client_id, sub)
     CROSS JOIN LATERAL (
       SELECT * FROM deliveries WHERE receiver_id = u.receiver_id AND session_id = '' AND client_id = u.client_id AND sid = $1 || ' ' || u.sub OFFSET 0) d
     WHERE d.of_user`,
    id, users.map((user) => user.receiverId), users.map((user) => user.clientId), users.map((user) => user.sub),
  )
  return (row?.told ?? []).map(deliveryOf)
}

const deliveryOf = ([receiverId, clientId, sid, sub, state, outcome, time]: Told): EndedDelivery => ({ receiverId, clientId, sid, sub, state, outcome, time })

const add = <Value>(lists: Map<string, Value[]>, key: string, value: Value): void => {
  const list = lists.get(key)
  if (list === undefined) lists.set(key, [value])
  else list.push(value)
}

const compare = (one: string, other: string): number => (one < other ? -1 : one > other ? 1 : 0)
