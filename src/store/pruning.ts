/**
 * What has had its time goes, in bounded steps: deliveries that are done, sessions that are over, with their participants
 * and events, and the commits that ended them. Nothing goes that is not yet handed on.
 *
 * Each step looks at one slice of a walk in the order of ids (for sessions that nobody ended, of their creation) and says
 * where to go on; so it costs what it looks at, needs no index of its own, and what must stay for now is met again
 * by the next walk. Rows that someone else holds are passed over. All may be repeated, and run by several at once.
 * What cannot have changed since it was seen is found again by its place (`ctid`): there is no slower plan for that.
 *
 * Lock order as everywhere: sessions, then deliveries; and nothing waits for a lock.
 */
import type { Database } from './postgres.ts'

/** Looked at by one statement: some ten milliseconds, some hundred where all of it goes. */
const DELIVERIES_AT_ONCE = 5_000
const SESSIONS_AT_ONCE = 1_000
/** Commits of few sessions; of larger ones, as many as have `SESSIONS_AT_ONCE` together, and one at the least. */
const COMMITS_AT_ONCE = 200

export interface Pruned {
  readonly removed: number
  /** Where the walk goes on, or null: it is at its end. */
  readonly next: string | null
}

// The walk ends at the first slice of which nothing is old enough: a delivery is done after it was made.
const DELIVERIES = `
WITH seen AS MATERIALIZED (
  SELECT id, ctid AS place, state <> 'pending' AND done_at <= now() - make_interval(secs => $2::float8) AS over,
    created_at <= now() - make_interval(secs => $2::float8) AS old
  FROM deliveries WHERE id > $1::text::bigint ORDER BY id LIMIT ${DELIVERIES_AT_ONCE}
), held AS MATERIALIZED (
  SELECT ctid AS place FROM deliveries
  WHERE ctid = ANY(ARRAY(SELECT place FROM seen WHERE over)) AND state <> 'pending' AND done_at <= now() - make_interval(secs => $2::float8)
  FOR UPDATE SKIP LOCKED
), gone AS (
  DELETE FROM deliveries WHERE ctid = ANY(ARRAY(SELECT place FROM held)) RETURNING 1
)
SELECT (SELECT count(*) FROM gone)::int AS removed,
  CASE WHEN EXISTS (SELECT FROM seen WHERE old) THEN (SELECT max(id) FROM seen)::text END AS next`

/** Removes deliveries that are acknowledged, moot or failed since `retentionSeconds`. @param after '0' for the first slice. */
export const pruneDeliveries = (
  db: Database,
  { after, retentionSeconds }: { after: string; retentionSeconds: number },
): Promise<Pruned> => prunedBy(db, DELIVERIES, after, retentionSeconds)

const REMOVE_HELD = `
gone_events AS (
  DELETE FROM session_events WHERE session_id = ANY(ARRAY(SELECT id FROM held))
), gone AS (
  DELETE FROM sessions WHERE id = ANY(ARRAY(SELECT id FROM held)) RETURNING 1
)`

/** Nobody is still to be told of it. */
const TOLD = `NOT EXISTS (SELECT FROM deliveries d WHERE d.session_id = s.id AND d.state = 'pending')`

// A session goes once neither it nor a token of it could live (G2). The commit goes in a later step, when its events are
// gone; so a slice is looked at again until nothing of it goes any more.
const ENDED = `
WITH next AS MATERIALIZED (
  SELECT id, sessions, ctid AS place, committed_at <= now() - make_interval(secs => $2::float8) AS old,
    routed_at IS NOT NULL AND enforced_at IS NOT NULL AND enforced_again_at IS NOT NULL AS handed_on
  FROM commits WHERE id > $1::text::bigint ORDER BY id LIMIT ${COMMITS_AT_ONCE}
), seen AS MATERIALIZED (
  SELECT * FROM (SELECT *, sum(sessions) OVER (ORDER BY id) - sessions AS before FROM next) n WHERE before < ${SESSIONS_AT_ONCE}
), ended AS MATERIALIZED (
  SELECT e.session_id FROM seen k
  CROSS JOIN LATERAL (SELECT session_id FROM session_events WHERE commit_id = k.id AND type = 'session.terminated' OFFSET 0) e
  WHERE k.old AND k.handed_on
), held AS MATERIALIZED (
  SELECT s.id FROM sessions s
  WHERE s.id = ANY(ARRAY(SELECT session_id FROM ended)) AND s.state = 'terminated'
    AND s.expires_at <= now() - make_interval(secs => $3::float8) AND s.terminated_at <= now() - make_interval(secs => $2::float8) AND ${TOLD}
  ORDER BY s.id FOR UPDATE OF s SKIP LOCKED
), ${REMOVE_HELD}, empty AS MATERIALIZED (
  SELECT c.ctid AS place FROM commits c
  WHERE c.ctid = ANY(ARRAY(SELECT place FROM seen WHERE old AND handed_on)) AND NOT EXISTS (SELECT FROM session_events e WHERE e.commit_id = c.id)
  FOR UPDATE OF c SKIP LOCKED
), gone_commits AS (
  DELETE FROM commits WHERE ctid = ANY(ARRAY(SELECT place FROM empty)) RETURNING 1
), removed AS (
  SELECT (SELECT count(*) FROM gone)::int + (SELECT count(*) FROM gone_commits)::int AS number
)
SELECT number AS removed, CASE
  WHEN number > 0 THEN $1::text
  WHEN EXISTS (SELECT FROM seen WHERE old) THEN (SELECT max(id) FROM seen)::text
END AS next FROM removed`

/**
 * Removes sessions that were ended before `retentionSeconds`, and the commits of which nothing is left.
 *
 * @param after '0' for the first slice. @param maxTokenLifetimeSeconds how long a token can outlive its session.
 */
export const pruneEnded = (
  db: Database,
  { after, retentionSeconds, maxTokenLifetimeSeconds }: { after: string; retentionSeconds: number; maxTokenLifetimeSeconds: number },
): Promise<Pruned> => prunedBy(db, ENDED, after, retentionSeconds, maxTokenLifetimeSeconds)

const EXPIRED = `
WITH seen AS MATERIALIZED (
  SELECT id, created_at, state = 'active' AND expires_at <= now() - make_interval(secs => $2::float8) AS over
  FROM sessions
  WHERE (created_at, id) > (split_part($1::text, ' ', 1)::timestamptz, substr($1::text, strpos($1::text, ' ') + 1) COLLATE "C")
    AND created_at <= now() - make_interval(secs => $2::float8)
  ORDER BY created_at, id LIMIT ${SESSIONS_AT_ONCE}
), held AS MATERIALIZED (
  SELECT s.id FROM sessions s
  WHERE s.id = ANY(ARRAY(SELECT id FROM seen WHERE over)) AND s.state = 'active' AND s.expires_at <= now() - make_interval(secs => $2::float8)
  ORDER BY s.id FOR UPDATE OF s SKIP LOCKED
), ${REMOVE_HELD}
SELECT (SELECT count(*) FROM gone)::int AS removed, CASE WHEN (SELECT count(*) FROM seen) = ${SESSIONS_AT_ONCE} THEN (
  SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') || ' ' || id FROM seen ORDER BY created_at DESC, id DESC LIMIT 1) END AS next`

/** Removes sessions that expired before `retentionSeconds` and that nobody ended. @param after `BEFORE_ALL` for the first slice. */
export const pruneExpired = (
  db: Database,
  { after, retentionSeconds }: { after: string; retentionSeconds: number },
): Promise<Pruned> => prunedBy(db, EXPIRED, after, retentionSeconds)

/** Before every session. */
export const BEFORE_ALL = '-infinity '

const prunedBy = async (db: Database, statement: string, ...parameters: readonly (string | number)[]): Promise<Pruned> => {
  const [row] = await db.$queryRawUnsafe<Pruned[]>(statement, ...parameters)
  if (row === undefined) throw new Error('Pruning returned no row')
  return row
}
