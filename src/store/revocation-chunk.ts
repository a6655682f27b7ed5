/**
 * One chunk of a revocation: one statement, so one transaction, ends the next sessions of one slice and writes their
 * events, the outbox row, the slice's cursor and its counts. A crash repeats nothing and loses nothing.
 *
 * Why nothing waits and no deadlock is possible, whatever else runs:
 * - The slice is taken with SKIP LOCKED: chunks of one slice come one after the other, those of others beside it.
 * - The revocation's row is not locked: whoever steers would wait for ever while chunks overlap. Its state is read when
 *   the slice is held, with a snapshot of its own (`revocation_runs`). Whoever steers takes all slices before that is
 *   committed (`awaitChunks`), so when it is answered nothing more is ended.
 * - Sessions are locked with SKIP LOCKED. One that somebody else holds counts as met and not ended, is passed by, and is
 *   met again by the next pass. Locked are the rows as they are now: one that was ended a moment ago is not.
 *
 * Rows are found again by their place (ctid), not by their key, which saves a descent for each. A session that was
 * changed since this statement began is no longer at its place, is not ended and is met by the next pass too: `ended`
 * is what the update returns, and nothing is concluded from anything else.
 */
import type { EndedSession, RevocationScope } from '../model.ts'
import { otherSids } from './other-sids.ts'
import type { Database } from './postgres.ts'
import { matchingSessions } from './revocation-filter.ts'
import { entriesOf, keyOf } from './revocation-walk.ts'
import type { Walk } from './revocation-walk.ts'
import { createStatement } from './statement.ts'

export interface ChunkAsked {
  readonly revocationId: string
  readonly scope: RevocationScope
  readonly walk: Walk
  /** Entries of the index that are looked at, and sessions that are ended, at most. */
  readonly entries: number
  readonly sessions: number
}

export interface Chunk {
  /** Null: it is not running, or no slice is open that nobody else holds. */
  readonly slice: number | null
  readonly entries: number
  /** Slices with an end that were open before it. */
  readonly open: number
  /** Live sessions met, of which some may be somebody else's. */
  readonly met: number
  /** The outbox row and what it ended; null: nothing. */
  readonly commitId: string | null
  readonly ended: readonly EndedSession[]
}

const statementOf = ({ revocationId, scope, walk, entries, sessions }: ChunkAsked): { text: string; values: unknown[] } => {
  const { values, next } = createStatement()
  const [id, most, mostSessions] = [`${next(revocationId)}::text::uuid`, `${next(entries)}::int`, `${next(sessions)}::int`]
  const walked = entriesOf(walk, next, {
    match: matchingSessions(scope, next, walk.kind), most, after: '(SELECT at_key FROM slice)', until: '(SELECT until_key FROM slice)',
  })
  // The last slice, which has no end, comes last: others are cut off it.
  const text = `
WITH slice AS MATERIALIZED (
  SELECT revocation_id, number, at_key, until_key FROM revocation_slices
  WHERE revocation_id = ${id} AND NOT ended ORDER BY until_key = '{}', number LIMIT 1 FOR UPDATE SKIP LOCKED
), running AS MATERIALIZED (
  SELECT id, mode, reason, actor_issuer, actor_subject FROM revocations
  WHERE id = (SELECT revocation_id FROM slice) AND revocation_runs(id)
), stretch AS MATERIALIZED (
  SELECT e.*, row_number() OVER () AS at FROM (${walked}) e WHERE EXISTS (SELECT FROM running)
), met AS MATERIALIZED (
  SELECT place, at FROM stretch WHERE live ORDER BY at LIMIT ${mostSessions}
), held AS MATERIALIZED (
  SELECT s.ctid AS place FROM sessions s WHERE s.ctid = ANY(ARRAY(SELECT place FROM met)) AND s.state = 'active'
  ORDER BY s.id FOR NO KEY UPDATE OF s SKIP LOCKED
), ended AS (
  UPDATE sessions s
  SET state = 'terminated', sequence = s.sequence + 1,
      change_date = greatest(date_trunc('milliseconds', now()), s.change_date),
      terminated_at = greatest(date_trunc('milliseconds', now()), s.change_date)
  WHERE s.ctid = ANY(ARRAY(SELECT place FROM held)) AND s.state = 'active'
  RETURNING s.id, s.issuer, s.sequence, s.change_date, s.resource_owner, s.expires_at, s.cache_keys
), receipt AS (
  INSERT INTO commits (sessions, revocation_id) SELECT count(*), ${id} FROM ended HAVING count(*) > 0
  RETURNING id, sessions
), told AS (
  INSERT INTO session_events (session_id, sequence, type, mode, reason, actor_issuer, actor_subject, revocation_id, commit_id, resource_owner, created_at)
  SELECT e.id, e.sequence, 'session.terminated', r.mode, r.reason, r.actor_issuer, r.actor_subject, r.id, c.id, e.resource_owner, e.change_date
  FROM ended e CROSS JOIN receipt c CROSS JOIN running r
), counted AS MATERIALIZED (
  SELECT (SELECT count(*) FROM stretch) AS entries, m.met, CASE WHEN m.met = ${mostSessions} THEN m.at ELSE (SELECT max(at) FROM stretch) END AS at
  FROM (SELECT count(*) AS met, max(at) AS at FROM met) m
), moved AS (
  UPDATE revocation_slices l
  SET at_key = coalesce((SELECT ${keyOf(walk, 'e')} FROM stretch e WHERE e.at = c.at), l.at_key),
      ended = c.entries < ${most} AND coalesce(c.at, 0) = c.entries,
      found = l.found + c.met, matched = l.matched + c.met, terminated = l.terminated + coalesce((SELECT sessions FROM receipt), 0)
  FROM counted c CROSS JOIN running r
  WHERE l.revocation_id = ${id} AND l.number = (SELECT number FROM slice)
)
SELECT (SELECT s.number FROM slice s CROSS JOIN running) AS slice, c.entries::int AS entries, c.met::int AS met,
  (SELECT count(*)::int FROM revocation_slices WHERE revocation_id = ${id} AND NOT ended AND until_key <> '{}') AS open, (SELECT id::text FROM receipt) AS "commitId",
  (SELECT json_agg(json_build_array(e.id, e.issuer, floor(extract(epoch FROM e.expires_at) * 1000), e.cache_keys, ${otherSids('e.id')})) FROM ended e)::text AS ended
FROM counted c`
  return { text, values }
}

type EndedTuple = readonly [sessionId: string, issuer: string, expiresAtMs: number, cacheKeys: string[], sids: string[]]

/**
 * Ends the next sessions of a revocation. May be repeated and run by many at once.
 *
 * @throws what the driver throws; whether it was committed then shows in the slice, which the next chunk goes on from.
 */
export const endChunk = async (db: Database, asked: ChunkAsked): Promise<Chunk> => {
  const { text, values } = statementOf(asked)
  const [row] = await db.$queryRawUnsafe<(Omit<Chunk, 'ended'> & { ended: string | null })[]>(text, ...values)
  if (row === undefined) throw new Error('A chunk returned no row')
  const ended = JSON.parse(row.ended ?? '[]') as EndedTuple[]
  return { ...row, ended: ended.map(([sessionId, issuer, expiresAtMs, cacheKeys, sids]) => ({ sessionId, issuer, expiresAtMs, cacheKeys, sids })) }
}
