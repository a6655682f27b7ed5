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

/**
 * Records that caches were told of these commits `agesMs` milliseconds ago, by the database's clock. Returns how many
 * seconds after its commit each was enforced, without those that were recorded before.
 */
export const markEnforced = async (db: Database, commitIds: readonly string[], agesMs: readonly number[], again: readonly boolean[]): Promise<number[]> => {
  const rows = await db.$queryRawUnsafe<{ seconds: number }[]>(
    `UPDATE commits c SET
       enforced_at = greatest(c.committed_at, clock_timestamp() - make_interval(secs => m.age_ms / 1000)),
       enforced_again_at = CASE WHEN m.again THEN clock_timestamp() END
     FROM unnest($1::bigint[], $2::float8[], $3::boolean[]) AS m(id, age_ms, again)
     WHERE c.id = m.id AND c.enforced_at IS NULL
     RETURNING extract(epoch FROM c.enforced_at - c.committed_at)::float8 AS seconds`,
    commitIds, agesMs, again,
  )
  return rows.map(({ seconds }) => seconds)
}

/** Has upkeep enforce this commit anew. */
export const markUnenforced = async (db: Database, commitId: string): Promise<void> => {
  await db.$executeRawUnsafe('UPDATE commits SET enforced_at = NULL, enforced_again_at = NULL WHERE id = $1::text::bigint', commitId)
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
const sliceOf = (commits: string, order: string): string =>
  `SELECT id::text AS id FROM (SELECT c.*, sum(sessions) OVER (ORDER BY ${order}) - sessions AS before
     FROM (${commits} ORDER BY ${order} LIMIT $2) c) b WHERE before < $3 ORDER BY ${order}`

const UNENFORCED = sliceOf(
  'SELECT id, sessions FROM commits WHERE enforced_at IS NULL AND committed_at <= clock_timestamp() - make_interval(secs => $1::float8 / 1000)', 'id')
const DUE_AGAIN = sliceOf(
  'SELECT id, sessions, enforced_at FROM commits WHERE enforced_again_at IS NULL AND enforced_at <= clock_timestamp() - make_interval(secs => $1::float8)', 'enforced_at, id')

/** A slice of the commits that were not enforced within `olderThanMs`; none means there are no more. Relies on commits_unenforced. */
export const readUnenforced = async (db: Database, { olderThanMs, limit, sessions }: Slice & { olderThanMs: number }): Promise<string[]> =>
  (await db.$queryRawUnsafe<{ id: string }[]>(UNENFORCED, olderThanMs, limit, sessions)).map(({ id }) => id)

/** A slice of the commits whose second deletion is due. Relies on commits_not_enforced_again. */
export const readDueAgain = async (db: Database, { afterSeconds, limit, sessions }: Slice & { afterSeconds: number }): Promise<string[]> =>
  (await db.$queryRawUnsafe<{ id: string }[]>(DUE_AGAIN, afterSeconds, limit, sessions)).map(({ id }) => id)

/** The sessions that these commits ended, with what cache keys are made from. */
export const readEnforceable = (db: Database, commitIds: readonly string[]): Promise<EnforceableSession[]> =>
  db.$queryRawUnsafe<EnforceableSession[]>(TARGETS, commitIds)
