/**
 * From commits to deliveries, in one statement (so in one transaction): claim, plan, mark.
 *
 * Commits are claimed by state, never by a cursor over ids: a lower id that commits later is found, and a transaction
 * that someone leaves open elsewhere holds nothing up. Two routers share the work: each skips what the other holds.
 */
import { MOOT_AT, holdReceivers, isHeld } from './deliveries.ts'
import type { Database } from './postgres.ts'

/** Commits locked by one statement: 200 single log-outs are planned in a few milliseconds. */
export const COMMITS_AT_ONCE = 200
/** Events planned by one statement: about 100 ms of Postgres, measured; larger claims are no faster. */
const EVENTS_AT_ONCE = 5_000

/**
 * A webhook needs no participant: it is told of the session itself, by no client's name. Asked for twice, with and without
 * an organization, so that each is a look-up by key.
 */
export const webhooksOf = (scope: string): string => `
  SELECT r.id, s.id, '', s.id, s.user_id, s.issuer, s.commit_id, s.moot_at
  FROM ended s CROSS JOIN LATERAL (
    SELECT id FROM receivers WHERE type = 'webhook' AND issuer = s.issuer AND ${scope} AND 'session.terminated' = ANY(events) OFFSET 0) r`

/**
 * The sessions that `claimed` commits ended and that concern anybody. One that concerns nobody (no participant, no webhook
 * anywhere) is not looked up: that page is cold again by now, and was most of the claim's time.
 */
export const endedOf = (maxTokenLifetimeSeconds: string): string => `events AS MATERIALIZED (
  SELECT e.session_id, e.commit_id FROM claimed k CROSS JOIN LATERAL (
    SELECT session_id, commit_id FROM session_events WHERE commit_id = k.id AND type = 'session.terminated' OFFSET 0) e
), concerning AS MATERIALIZED (
  SELECT session_id, commit_id FROM events e
  WHERE (SELECT count(*) FROM (SELECT FROM session_clients WHERE session_id = e.session_id LIMIT 1) c) > 0
    OR (SELECT count(*) FROM (SELECT FROM receivers WHERE type = 'webhook' LIMIT 1) w) > 0
), ended AS MATERIALIZED (
  SELECT s.id, s.issuer, s.user_id, s.resource_owner, e.commit_id, ${MOOT_AT(maxTokenLifetimeSeconds)} AS moot_at
  FROM concerning e CROSS JOIN LATERAL (SELECT * FROM sessions WHERE id = e.session_id OFFSET 0) s
)`

/**
 * Whether unrouted commits `of` some kind were there that somebody else held: `locked` took all that nobody did, where it took
 * fewer than it may.
 */
export const passedOver = (of: string): string => `
  (SELECT count(*) < ${COMMITS_AT_ONCE} FROM locked) AND (SELECT count(*) FROM locked)
    < (SELECT count(*) FROM (SELECT FROM commits WHERE routed_at IS NULL AND ${of} LIMIT ${COMMITS_AT_ONCE}) u) AS "passedOver"`

// `claimed` is the prefix of the locked commits that fits; at least one, however many sessions it ended.
// Disabled receivers collect too: they are paused, and told once they are switched on.
// OFFSET 0 makes Postgres look everything up by its key, each commit's events, each session, each client's receivers: a
// generic plan made while the tables were small otherwise walks a whole index for every claim, for as long as the plan
// lives. Inserting in index order costs a sort and saves more than that in index pages.
const ROUTE = `
WITH locked AS MATERIALIZED (
  SELECT id, sessions FROM commits WHERE routed_at IS NULL AND revocation_id IS NULL ORDER BY id LIMIT ${COMMITS_AT_ONCE} FOR NO KEY UPDATE SKIP LOCKED
), claimed AS MATERIALIZED (
  SELECT id FROM (SELECT id, sum(sessions) OVER (ORDER BY id) - sessions AS before FROM locked) l WHERE before < ${EVENTS_AT_ONCE}
), ${endedOf('$1')}, concerned AS (
  SELECT r.id AS receiver_id, s.id AS session_id, c.client_id, c.sid, c.sub, s.issuer, s.commit_id, s.moot_at
  FROM ended s
  CROSS JOIN LATERAL (SELECT client_id, sid, sub FROM session_clients WHERE session_id = s.id OFFSET 0) c
  CROSS JOIN LATERAL (
    SELECT id FROM receivers WHERE issuer = s.issuer AND client_id = c.client_id AND type = 'backchannel_logout'
      AND (resource_owner IS NULL OR resource_owner = s.resource_owner) OFFSET 0) r
  UNION ALL
  ${webhooksOf('resource_owner = s.resource_owner')}
  UNION ALL
  ${webhooksOf('resource_owner IS NULL')}
), ${holdReceivers('concerned')}, planned AS (
  INSERT INTO deliveries (receiver_id, session_id, client_id, sid, sub, issuer, commit_id, moot_at)
  SELECT * FROM concerned WHERE ${isHeld} ORDER BY session_id, receiver_id
  ON CONFLICT (receiver_id, session_id, client_id, sid) DO NOTHING
  RETURNING receiver_id
), marked AS (
  UPDATE commits SET routed_at = clock_timestamp() FROM claimed k WHERE commits.id = k.id
)
SELECT (SELECT count(*) FROM claimed)::int AS commits,
  (SELECT count(*) = ${COMMITS_AT_ONCE} FROM locked) OR (SELECT count(*) FROM locked) > (SELECT count(*) FROM claimed) AS more,
  ${passedOver('revocation_id IS NULL')},
  (SELECT count(*) FROM planned)::int AS deliveries,
  ARRAY(SELECT DISTINCT receiver_id FROM planned) AS "receiverIds"`

export interface Routed {
  /** Commits handed on; 0 where none is left that nobody else holds. */
  readonly commits: number
  /** False where this was all that there was. */
  readonly more: boolean
  /** True where some were left because somebody held them: another router, or for a moment whoever records that caches were told. */
  readonly passedOver: boolean
  readonly deliveries: number
  /** Who has something new. */
  readonly receiverIds: readonly string[]
}

/** Hands on one slice of unrouted commits. May be repeated and run by many at once. Relies on commits_unrouted. */
export const routeCommits = async (db: Database, { maxTokenLifetimeSeconds }: { maxTokenLifetimeSeconds: number }): Promise<Routed> => {
  const [row] = await db.$queryRawUnsafe<Routed[]>(ROUTE, maxTokenLifetimeSeconds)
  if (row === undefined) throw new Error('Routing returned no row')
  return row
}
