/**
 * The commit: one statement ends a batch of sessions and answers for every command from the rows it locked.
 *
 * Why it is right under READ COMMITTED:
 * - Rows are locked in id order whatever their state, and locking re-reads the newest committed version. So an
 *   answer comes from the row as it is now, also when another transaction ended the session a moment ago.
 * - Rows that someone else holds are skipped, not waited for (`busy`): a locked row delays only its own session,
 *   and batches that overlap cannot deadlock.
 * - The first termination's details live in the session's row and stay there: a trigger refuses every later change.
 * - `now()` is taken before the lock, so only `greatest` keeps the date from going backwards; it is cut to
 *   milliseconds, not rounded, so that it never lies in the future.
 *
 * Touches at most one row of sessions and one event for each command, and one row of commits. Relies on sessions_pkey.
 */
import type { Details, EndedSession, TerminateAnswer, TerminateCommand } from '../model.ts'
import { otherSidsOfLocked, writerOf } from './other-sids.ts'
import type { Database } from './postgres.ts'
import { wireTime } from './wire-time.ts'

// Every join of lists is a FULL JOIN though a LEFT JOIN would say the same: it cannot be planned as nested loops, which
// a generic plan's guess of ten rows otherwise makes of it (500 x 500 comparisons in a full batch). The answers need
// no join with the updated rows: what was locked and live is what was updated, and `now()` is one moment.
const TERMINATE = `
WITH asker AS MATERIALIZED (
  SELECT k, string_to_array(issuers, ' ') AS issuers, actor_issuer, actor_subject, mode::termination_mode AS mode, reason
  FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
    WITH ORDINALITY AS t(issuers, actor_issuer, actor_subject, mode, reason, k)
), locked AS MATERIALIZED (
  SELECT s.id, s.issuer, s.state, s.sequence, s.change_date, s.resource_owner, s.expires_at, s.cache_keys,
    ${writerOf('s')} AS writer
  FROM sessions s WHERE s.id = ANY($1::text[])
  ORDER BY s.id
  FOR NO KEY UPDATE OF s SKIP LOCKED
), judged AS MATERIALIZED (
  SELECT a.n, a.id, k.issuers, k.actor_issuer, k.actor_subject, k.mode, k.reason, l.sequence, l.change_date, l.resource_owner,
         l.issuer, l.expires_at, l.cache_keys, l.writer, l.id IS NOT NULL AS held, l.issuer = ANY(k.issuers) AS may,
         l.issuer = ANY(k.issuers) AND l.state = 'active' AS live,
         row_number() OVER (PARTITION BY a.id, l.issuer = ANY(k.issuers) AND l.state = 'active' ORDER BY a.n) AS turn
  FROM unnest($1::text[], $2::int[]) WITH ORDINALITY AS a(id, asker, n)
    FULL JOIN asker k ON k.k = a.asker
    FULL JOIN locked l ON l.id = a.id
), ended AS (
  UPDATE sessions s
  SET state = 'terminated', sequence = s.sequence + 1,
      change_date = greatest(date_trunc('milliseconds', now()), s.change_date),
      terminated_at = greatest(date_trunc('milliseconds', now()), s.change_date)
  FROM judged j WHERE j.live AND j.turn = 1 AND s.id = j.id
  RETURNING s.id, s.sequence, s.change_date, s.resource_owner, j.actor_issuer, j.actor_subject, j.mode, j.reason
), receipt AS (
  INSERT INTO commits (sessions) SELECT count(*) FROM ended HAVING count(*) > 0
  RETURNING id, sessions
), told AS (
  INSERT INTO session_events (session_id, sequence, type, mode, reason, actor_issuer, actor_subject, commit_id, resource_owner, created_at)
  SELECT e.id, e.sequence, 'session.terminated', e.mode, e.reason, e.actor_issuer, e.actor_subject, r.id, e.resource_owner, e.change_date
  FROM ended e CROSS JOIN receipt r
)
SELECT (SELECT id::text FROM receipt) AS commit_id, (SELECT sessions FROM receipt) AS sessions, json_agg(
  CASE
    WHEN j.live THEN CASE WHEN j.turn = 1
      THEN json_build_array('ended', (j.sequence + 1)::text, ${wireTime(`greatest(date_trunc('milliseconds', now()), j.change_date)`)},
        j.resource_owner, j.issuer, floor(extract(epoch FROM j.expires_at) * 1000), j.cache_keys,
        ${otherSidsOfLocked({ id: 'j.id', writer: 'j.writer' })})
      ELSE json_build_array('before', (j.sequence + 1)::text,
        ${wireTime(`greatest(date_trunc('milliseconds', now()), j.change_date)`)}, j.resource_owner) END
    WHEN j.may THEN json_build_array('before', j.sequence::text, ${wireTime('j.change_date')}, j.resource_owner)
    WHEN NOT j.held AND EXISTS (SELECT FROM sessions s WHERE s.id = j.id AND s.issuer = ANY(j.issuers)) THEN json_build_array('busy')
    ELSE json_build_array('unknown')
  END ORDER BY j.n)::text AS answers
FROM judged j`

const READ_TERMINATED = `
SELECT json_agg(json_build_array(s.id, s.issuer, s.sequence::text, ${wireTime('s.change_date')}, s.resource_owner))::text AS answers
FROM sessions s WHERE s.id = ANY($1::text[]) AND s.state = 'terminated'`

type ReadTuple = readonly [id: string, issuer: string, sequence: string, changeDate: string, resourceOwner: string]
type AnsweredTuple = readonly [outcome: 'ended' | 'before', sequence: string, changeDate: string, resourceOwner: string]
type EndedTuple = readonly [outcome: 'ended', sequence: string, changeDate: string, resourceOwner: string, issuer: string, expiresAtMs: number, cacheKeys: string[], sids: string[]]
type AnswerTuple = AnsweredTuple | EndedTuple | readonly [outcome: 'busy' | 'unknown']

interface CommitRow {
  readonly commit_id: string | null
  readonly sessions: number | null
  readonly answers: string
}

export interface Committed {
  /** One answer for each command, in their order. */
  readonly answers: readonly TerminateAnswer[]
  /** The sessions that this commit ended; empty where it ended none. */
  readonly ended: readonly EndedSession[]
  /** The outbox row, or null where nothing was ended. */
  readonly commitId: string | null
}

/** The distinct askers of a batch and, for each command, which of them asked (counted from 1, as SQL does). */
const gatherAskers = (commands: readonly TerminateCommand[]) => {
  const numbers = new Map<string, number>()
  const columns: [string[], string[], string[], string[], (string | null)[]] = [[], [], [], [], []]
  const asked = commands.map(({ issuers, actor, mode, reason }) => {
    const joined = issuers.join(' ')
    const key = JSON.stringify([joined, actor.issuer, actor.subject, mode, reason])
    let number = numbers.get(key)
    if (number === undefined) {
      number = columns[0].push(joined)
      columns[1].push(actor.issuer)
      columns[2].push(actor.subject)
      columns[3].push(mode)
      columns[4].push(reason)
      numbers.set(key, number)
    }
    return number
  })
  return { asked, columns }
}

/**
 * Ends what of the batch is live and answers for all of it, in one transaction. May be repeated: a session that
 * has ended is answered `before` with the first termination's details, without a second event.
 *
 * @throws what the driver throws; see `changedNothing` for what is then known.
 */
export const terminateSessions = async (db: Database, commands: readonly TerminateCommand[]): Promise<Committed> => {
  if (commands.length === 0) return { answers: [], ended: [], commitId: null }
  const { asked, columns } = gatherAskers(commands)
  const ids = commands.map(({ sessionId }) => sessionId)
  const [row] = await db.$queryRawUnsafe<CommitRow[]>(TERMINATE, ids, asked, ...columns)
  if (row === undefined) throw new Error('The commit returned no row')
  const tuples = JSON.parse(row.answers) as AnswerTuple[]
  if (tuples.length !== commands.length) throw new Error(`The commit answered ${tuples.length} of ${commands.length} commands`)
  const ended: EndedSession[] = []
  const answers = tuples.map((tuple, at): TerminateAnswer => {
    const [outcome] = tuple
    if (outcome === 'busy' || outcome === 'unknown') return { outcome }
    const [, sequence, changeDate, resourceOwner] = tuple as AnsweredTuple
    if (outcome === 'ended') {
      const [, , , , issuer, expiresAtMs, cacheKeys, sids] = tuple as EndedTuple
      ended.push({ sessionId: ids[at] ?? '', issuer, expiresAtMs, cacheKeys, sids })
    }
    return { outcome, details: { sequence, changeDate, resourceOwner } }
  })
  // Cannot happen while the rows are locked; if it ever did, nothing may be told that was not committed.
  if (ended.length !== (row.sessions ?? 0)) throw new Error(`The commit ended ${row.sessions} sessions and answered for ${ended.length}`)
  return { answers, ended, commitId: row.commit_id }
}

/**
 * Reads what is already committed, without ending anything: for each command the first termination's details,
 * or null where the session is not terminated, not known, or of an issuer beyond the asker's.
 */
export const readTerminated = async (db: Database, commands: readonly TerminateCommand[]): Promise<(TerminateAnswer | null)[]> => {
  const ids = [...new Set(commands.map(({ sessionId }) => sessionId))]
  const [row] = await db.$queryRawUnsafe<{ answers: string | null }[]>(READ_TERMINATED, ids)
  const found = new Map<string, { issuer: string; details: Details }>()
  for (const [id, issuer, sequence, changeDate, resourceOwner] of JSON.parse(row?.answers ?? '[]') as ReadTuple[]) {
    found.set(id, { issuer, details: { sequence, changeDate, resourceOwner } })
  }
  return commands.map(({ sessionId, issuers }) => {
    const session = found.get(sessionId)
    return session !== undefined && issuers.includes(session.issuer) ? { outcome: 'before', details: session.details } : null
  })
}
