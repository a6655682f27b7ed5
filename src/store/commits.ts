/**
 * The outbox rows' second clock: which commits have been enforced in the caches, and which are still to be.
 * Everything here may be repeated; two processes that take up the same commit do the same thing twice, harmlessly.
 */
import type { EndedSession } from '../model.ts'
import { otherSids } from './other-sids.ts'
import type { Database } from './postgres.ts'

/** A session of a commit, with all that cache keys are made from. */
export interface EnforceableSession extends EndedSession {
  readonly commitId: string
  readonly userId: string
}

// OFFSET 0: each session by its key, also from a generic plan made while the tables were small.
const TARGETS = `
SELECT e.commit_id::text AS "commitId", s.id AS "sessionId", s.issuer, s.user_id AS "userId",
  floor(extract(epoch FROM s.expires_at) * 1000)::float8 AS "expiresAtMs", s.cache_keys AS "cacheKeys",
  ${otherSids('s.id')} AS sids
FROM session_events e CROSS JOIN LATERAL (SELECT * FROM sessions WHERE id = e.session_id OFFSET 0) s
WHERE e.commit_id = ANY($1::bigint[]) AND e.type = 'session.terminated'`

/** What is first told of a commit. Each time that a participant becomes known by another sid after it, there is one more. */
export const FIRST_TELLING = 1

/** A commit, and which telling of it is meant. */
export interface CommitTelling {
  readonly commitId: string
  readonly telling: number
}

export interface EnforcedMark extends CommitTelling {
  /** Milliseconds since all local channels have confirmed it. */
  readonly ageMs: number
  /** There are no keys to delete a second time. */
  readonly once: boolean
}

/**
 * Records, by the database's clock, that all local channels were told of these commits. Leaves out those that are to be
 * told once more since. Returns how many seconds after its commit each was enforced, of those told for the first time.
 */
export const markEnforced = async (db: Database, marks: readonly EnforcedMark[]): Promise<number[]> => {
  const rows = await db.$queryRawUnsafe<{ seconds: number | null }[]>(
    `UPDATE commits c SET
       enforced_at = greatest(c.committed_at, clock_timestamp() - make_interval(secs => m.age_ms / 1000)),
       enforced_again_at = CASE WHEN m.once THEN clock_timestamp() END
     FROM unnest($1::bigint[], $2::int[], $3::float8[], $4::boolean[]) AS m(id, telling, age_ms, once)
     WHERE c.id = m.id AND c.tellings = m.telling AND c.enforced_at IS NULL
     RETURNING CASE WHEN c.tellings = ${FIRST_TELLING} THEN extract(epoch FROM c.enforced_at - c.committed_at) END::float8 AS seconds`,
    marks.map(({ commitId }) => commitId), marks.map(({ telling }) => telling), marks.map(({ ageMs }) => ageMs), marks.map(({ once }) => once),
  )
  return rows.flatMap(({ seconds }) => (seconds === null ? [] : [seconds]))
}

/** Records that these commits are on the stream, though they are not enforced. Leaves out those that are to be told once more since. */
export const markStreamed = async (db: Database, commits: readonly CommitTelling[]): Promise<void> => {
  await db.$executeRawUnsafe(
    `UPDATE commits c SET streamed_at = clock_timestamp() FROM unnest($1::bigint[], $2::int[]) AS m(id, telling)
     WHERE c.id = m.id AND c.tellings = m.telling AND c.enforced_at IS NULL AND c.streamed_at IS NULL`,
    commits.map(({ commitId }) => commitId), commits.map(({ telling }) => telling),
  )
}

/** Records that the second deletion of these commits is done. */
export const markEnforcedAgain = async (db: Database, commitIds: readonly string[]): Promise<void> => {
  await db.$executeRawUnsafe('UPDATE commits SET enforced_again_at = clock_timestamp() WHERE id = ANY($1::bigint[]) AND enforced_again_at IS NULL', commitIds)
}

interface Slice {
  /** Commits at most, and sessions of them; one commit is never cut. */
  readonly limit: number
  readonly sessions: number
}

/** A query of the first of such commits that make a slice; `$2` and `$3` are its bounds. */
const sliceOf = (which: string, order: string): string =>
  `SELECT id::text AS "commitId", tellings AS telling FROM (SELECT c.*, sum(sessions) OVER (ORDER BY ${order}) - sessions AS before
     FROM (SELECT id, sessions, tellings, enforced_at FROM commits WHERE ${which} ORDER BY ${order} LIMIT $2) c) b WHERE before < $3 ORDER BY ${order}`

const OLD_ENOUGH = 'coalesce(retold_at, committed_at) <= clock_timestamp() - make_interval(secs => $1::float8 / 1000)'
const UNSTREAMED = sliceOf(`enforced_at IS NULL AND streamed_at IS NULL AND ${OLD_ENOUGH}`, 'id')
const UNENFORCED = sliceOf(`enforced_at IS NULL AND ${OLD_ENOUGH}`, 'id')
const DUE_AGAIN = sliceOf('enforced_again_at IS NULL AND enforced_at <= clock_timestamp() - make_interval(secs => $1::float8)', 'enforced_at, id')

/** A slice of the commits that no channel has confirmed within `olderThanMs`; none means there are no more. Relies on commits_unstreamed. */
export const readUnstreamed = (db: Database, { olderThanMs, limit, sessions }: Slice & { olderThanMs: number }): Promise<CommitTelling[]> =>
  db.$queryRawUnsafe<CommitTelling[]>(UNSTREAMED, olderThanMs, limit, sessions)

/** A slice of the commits that were not enforced within `olderThanMs`, on the stream or not. Relies on commits_unenforced. */
export const readUnenforced = (db: Database, { olderThanMs, limit, sessions }: Slice & { olderThanMs: number }): Promise<CommitTelling[]> =>
  db.$queryRawUnsafe<CommitTelling[]>(UNENFORCED, olderThanMs, limit, sessions)

/** A slice of the commits whose second deletion is due. Relies on commits_not_enforced_again. */
export const readDueAgain = async (db: Database, { afterSeconds, limit, sessions }: Slice & { afterSeconds: number }): Promise<string[]> =>
  (await db.$queryRawUnsafe<CommitTelling[]>(DUE_AGAIN, afterSeconds, limit, sessions)).map(({ commitId }) => commitId)

/** The sessions that these commits ended, with what cache keys are made from. */
export const readEnforceable = (db: Database, commitIds: readonly string[]): Promise<EnforceableSession[]> =>
  db.$queryRawUnsafe<EnforceableSession[]>(TARGETS, commitIds)
