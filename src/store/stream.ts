/**
 * The stream as Postgres alone knows it: what is in force (for snapshots, and for writing a Redis again), and what came
 * after a position. Positions are given to committed rows, by one process at a time, so a reader that has seen up to
 * one has missed none below it.
 *
 * Everything here may be repeated and run by many at once.
 */
import type { EndedOnTheWire, RuleOnTheWire } from '../client/wire.ts'
import type { VersionedRule } from './cutoff-rules.ts'
import { otherSids } from './other-sids.ts'
import type { Database } from './postgres.ts'

/** Rows that get a position in one statement: a few milliseconds. */
export const POSITIONED_AT_ONCE = 5_000
/** Entries that stay; a reader further behind takes a snapshot, which is then cheaper as well. */
export const ENTRIES_KEPT = 100_000
const PRUNED_AT_ONCE = 10_000
/** Commits and sessions of one page: some 50 ms of Postgres at most. One commit is never cut. */
const COMMITS_AT_ONCE = 500
const SESSIONS_AT_ONCE = 5_000

/** When a tombstone may be forgotten: neither the session nor a token of it can live any more. In ms since 1970. */
const EXPIRES_MS = (lifetime: string): string =>
  `ceil(extract(epoch FROM greatest(s.expires_at, s.terminated_at + make_interval(secs => ${lifetime}::float8))) * 1000)::float8`

/** A rule without what only the server needs. */
export const ruleOnTheWire = ({ id, issuer, organization, user, cutoffMs, excludeUsers, excludeSessions, expiresMs }: VersionedRule): RuleOnTheWire =>
  ({ id, issuer, organization, user, cutoffMs, excludeUsers, excludeSessions, expiresMs })

// The lock is asked for once, before the rows are read. Who does not get it leaves them to its holder and looks again.
const POSITION = `
WITH given AS (
  UPDATE stream_entries SET position = nextval('stream_position_seq')
  WHERE position IS NULL
    AND id = ANY (ARRAY(SELECT id FROM stream_entries WHERE position IS NULL ORDER BY id LIMIT ${POSITIONED_AT_ONCE}))
    AND (SELECT pg_try_advisory_xact_lock(hashtext('curfew'), hashtext('stream positions')))
  RETURNING position
)
SELECT count(*)::int AS count, coalesce(max(position), 0)::float8 AS last FROM given`

/** Gives positions to what is committed: how many (0 also where another process is at it), and the last. */
export const givePositions = async (db: Database): Promise<{ count: number; last: number }> => {
  const [given] = await db.$queryRawUnsafe<{ count: number; last: number }[]>(POSITION)
  if (given === undefined) throw new Error('Giving positions returned no row')
  return given
}

// Another cluster, another timeline (a failover or a restore), another database or table: positions begin anew.
const HEAD = `
SELECT to_hex(hashtextextended(concat_ws(':', (SELECT system_identifier FROM pg_control_system()), (SELECT timeline_id FROM pg_control_checkpoint()),
    (SELECT oid FROM pg_database WHERE datname = current_database()), 'stream_entries'::regclass::oid), 0)) AS epoch,
  coalesce((SELECT max(position) FROM stream_entries), 0)::float8 AS position,
  coalesce((SELECT max(version) FROM cutoff_rules), 0)::float8 AS rule,
  EXISTS (SELECT FROM stream_entries WHERE position IS NULL) AS pending`

export interface Head {
  /** Positions of different epochs cannot be compared. */
  readonly epoch: string
  readonly position: number
  /** The version of the newest rule: rules commit in the order of their versions. */
  readonly rule: number
  /** True where something is committed and has no position yet. */
  readonly pending: boolean
}

export const readHead = async (db: Database): Promise<Head> => {
  const [head] = await db.$queryRawUnsafe<Head[]>(HEAD)
  if (head === undefined) throw new Error('The stream has no head')
  return head
}

// A session is told by its id and by every other sid that participants know it by. OFFSET 0: each commit's events and each
// session by their keys, also from a generic plan made while tables were small.
const ENDED = (commits: string, lifetime: string): string => `
  SELECT ${commits}.id AS commit_id, s.issuer, n.id, ${EXPIRES_MS(lifetime)} AS expires_ms
  FROM ${commits}
  CROSS JOIN LATERAL (SELECT session_id FROM session_events WHERE commit_id = ${commits}.id AND type = 'session.terminated' OFFSET 0) e
  CROSS JOIN LATERAL (SELECT id, issuer, expires_at, terminated_at FROM sessions WHERE id = e.session_id OFFSET 0) s
  CROSS JOIN LATERAL unnest(s.id || ${otherSids('s.id')}) AS n(id)`

const ENTRIES = `
WITH next AS MATERIALIZED (
  SELECT e.position, c.id, c.sessions FROM stream_entries e CROSS JOIN LATERAL (SELECT id, sessions FROM commits WHERE id = e.commit_id OFFSET 0) c
  WHERE e.position > $1::float8::bigint AND e.position <= $2::float8::bigint ORDER BY e.position LIMIT ${COMMITS_AT_ONCE}
), page AS MATERIALIZED (
  SELECT id, position FROM (SELECT id, position, sum(sessions) OVER (ORDER BY position) - sessions AS before FROM next) n WHERE before < ${SESSIONS_AT_ONCE}
), told AS (
  SELECT DISTINCT id FROM page
), ended AS (${ENDED('told', '$3')})
SELECT p.position::float8 AS position, e.issuer, array_agg(e.id) AS "sessionIds", array_agg(e.expires_ms) AS "expiresMs"
FROM page p JOIN ended e ON e.commit_id = p.id
GROUP BY p.position, e.issuer ORDER BY p.position`

// Nothing after `after` has been pruned: see pruneEntries. Read after the page, so it holds for the page.
const NOT_PRUNED = `SELECT coalesce((SELECT max(position) FROM stream_entries), 0) - ${ENTRIES_KEPT} <= $1::float8::bigint AS here`

export interface PositionedEntry {
  readonly position: number
  readonly ended: readonly EndedOnTheWire[]
}

/**
 * The entries after a position, up to another, in order; a page of them. None: there are no more (an entry whose
 * sessions were pruned is left out). Null: some may be gone, so whoever asks needs a snapshot.
 */
export const readEntries = async (
  db: Database,
  { after, to, maxTokenLifetimeSeconds }: { after: number; to: number; maxTokenLifetimeSeconds: number },
): Promise<PositionedEntry[] | null> => {
  const rows = await db.$queryRawUnsafe<({ position: number } & EndedOnTheWire)[]>(ENTRIES, after, to, maxTokenLifetimeSeconds)
  const [kept] = await db.$queryRawUnsafe<{ here: boolean }[]>(NOT_PRUNED, after)
  if (kept?.here !== true) return null
  const entries: (PositionedEntry & { ended: EndedOnTheWire[] })[] = []
  for (const { position, issuer, sessionIds, expiresMs } of rows) {
    const last = entries.at(-1)
    if (last?.position === position) last.ended.push({ issuer, sessionIds, expiresMs })
    else entries.push({ position, ended: [{ issuer, sessionIds, expiresMs }] })
  }
  return entries
}

// From the newest commit back, so that what matters most comes first and old commits are never walked.
const IN_FORCE = `
WITH next AS MATERIALIZED (
  SELECT id, sessions, committed_at FROM commits WHERE id < coalesce($1::text::bigint, 9223372036854775807) ORDER BY id DESC LIMIT ${COMMITS_AT_ONCE}
), page AS MATERIALIZED (
  SELECT id, committed_at FROM (SELECT id, committed_at, sum(sessions) OVER (ORDER BY id DESC) - sessions AS before FROM next) n WHERE before < ${SESSIONS_AT_ONCE}
), ended AS (${ENDED('page', '$2')}),
columns AS (
  SELECT issuer, json_agg(id) AS ids, json_agg(expires_ms) AS ends FROM ended
  WHERE expires_ms > extract(epoch FROM clock_timestamp()) * 1000 GROUP BY issuer
)
SELECT (SELECT min(id)::text FROM page) AS next, (SELECT max(id)::text FROM page) AS newest,
  coalesce((SELECT max(committed_at) < to_timestamp($3::float8 / 1000) FROM page), true) AS last,
  coalesce((SELECT json_agg(json_build_object('issuer', issuer, 'sessionIds', ids, 'expiresMs', ends)) FROM columns), '[]')::text AS ended`

export interface TombstonePage {
  readonly ended: readonly EndedOnTheWire[]
  /** Where the next page begins; null: this was the last. */
  readonly next: string | null
  /** The highest commit in it; null in an empty one. */
  readonly newest: string | null
}

/**
 * A page of the tombstones that are in force, of commits before `before` (null: from the newest), as far back as
 * `sinceMs` by the database's clock. Relies on commits_pkey and session_events_by_commit.
 */
export const readTombstones = async (
  db: Database,
  { before, sinceMs, maxTokenLifetimeSeconds }: { before: string | null; sinceMs: number; maxTokenLifetimeSeconds: number },
): Promise<TombstonePage> => {
  const [row] = await db.$queryRawUnsafe<{ next: string | null; newest: string | null; last: boolean; ended: string }[]>(
    IN_FORCE, before, maxTokenLifetimeSeconds, sinceMs,
  )
  if (row === undefined) throw new Error('A page of tombstones returned no row')
  return { ended: JSON.parse(row.ended) as EndedOnTheWire[], next: row.last ? null : row.next, newest: row.newest }
}

// By when they were to be told again, so that none is missed, however old its commit is.
const RETOLD = `
WITH next AS MATERIALIZED (
  SELECT id, sessions, retold_at FROM commits
  WHERE retold_at >= to_timestamp($2::float8 / 1000) AND (retold_at, id) > (coalesce($3::text::timestamptz, '-infinity'), coalesce($4::text::bigint, 0))
  ORDER BY retold_at, id LIMIT ${COMMITS_AT_ONCE}
), told AS MATERIALIZED (
  SELECT id, retold_at FROM (SELECT id, retold_at, sum(sessions) OVER (ORDER BY retold_at, id) - sessions AS before FROM next) n WHERE before < ${SESSIONS_AT_ONCE}
), ended AS (${ENDED('told', '$1')}),
columns AS (
  SELECT issuer, json_agg(id) AS ids, json_agg(expires_ms) AS ends FROM ended
  WHERE expires_ms > extract(epoch FROM clock_timestamp()) * 1000 GROUP BY issuer
), last AS (
  SELECT id, retold_at FROM told ORDER BY retold_at DESC, id DESC LIMIT 1
)
SELECT (SELECT json_build_object('retoldAt', retold_at::text, 'commitId', id::text) FROM last)::text AS next,
  coalesce((SELECT json_agg(json_build_object('issuer', issuer, 'sessionIds', ids, 'expiresMs', ends)) FROM columns), '[]')::text AS ended`

/** Where a page of what was told again ended. */
export interface RetoldPlace {
  readonly retoldAt: string
  readonly commitId: string
}

export interface RetoldPage {
  readonly ended: readonly EndedOnTheWire[]
  /** Where the next page begins; null: there are no more. */
  readonly next: RetoldPlace | null
}

/**
 * What commits ended that are told again since `sinceMs` (the database's clock), because a participant became known by
 * another sid after them; a page of it, in the order of telling. Relies on commits_retold.
 */
export const readRetold = async (
  db: Database,
  { sinceMs, after, maxTokenLifetimeSeconds }: { sinceMs: number; after: RetoldPlace | null; maxTokenLifetimeSeconds: number },
): Promise<RetoldPage> => {
  const [row] = await db.$queryRawUnsafe<{ next: string | null; ended: string }[]>(
    RETOLD, maxTokenLifetimeSeconds, sinceMs, after?.retoldAt ?? null, after?.commitId ?? null,
  )
  if (row === undefined) throw new Error('A page of what is told again returned no row')
  return { ended: JSON.parse(row.ended) as EndedOnTheWire[], next: row.next === null ? null : (JSON.parse(row.next) as RetoldPlace) }
}

// Ids and times are given together, so among the lowest hundred is the oldest, but for the width of a time slice.
const STREAMED = `
SELECT (extract(epoch FROM clock_timestamp()) * 1000)::float8 AS "nowMs",
  (SELECT extract(epoch FROM min(at)) * 1000 - 100 FROM (
     SELECT coalesce(retold_at, committed_at) AS at FROM commits WHERE enforced_at IS NULL AND streamed_at IS NULL ORDER BY id LIMIT 100) u)::float8 AS "oldestMs",
  coalesce((SELECT id FROM commits WHERE enforced_at IS NOT NULL OR streamed_at IS NOT NULL ORDER BY id DESC LIMIT 1), 0)::float8 AS "commit"`

export interface StreamedUpTo {
  /** The database's clock, in ms since 1970. */
  readonly nowMs: number
  /** Everything that was to be told before this is on the stream, by the same clock. */
  readonly freshMs: number
  /** The highest commit that was recorded as on it. */
  readonly commit: number
}

/** How far commits are recorded as on the stream. Relies on commits_unstreamed and commits_pkey. */
export const readStreamedUpTo = async (db: Database): Promise<StreamedUpTo> => {
  const [row] = await db.$queryRawUnsafe<{ nowMs: number; oldestMs: number | null; commit: number }[]>(STREAMED)
  if (row === undefined) throw new Error('What is on the stream returned no row')
  return { nowMs: row.nowMs, freshMs: Math.min(row.nowMs, row.oldestMs ?? Infinity), commit: row.commit }
}

/** Forgets entries that no reader is served any more; fewer than it takes at once means there are no more. */
export const pruneEntries = (db: Database): Promise<number> =>
  db.$executeRawUnsafe(
    `DELETE FROM stream_entries WHERE id IN (
       SELECT id FROM stream_entries WHERE position < (SELECT max(position) FROM stream_entries) - ${ENTRIES_KEPT} ORDER BY position LIMIT ${PRUNED_AT_ONCE})`,
  )
