/**
 * What of revocations is found in Postgres alone: those that are to be gone on with, whoever was at it, and those whose
 * second clock can be set. Everything may be repeated and run by many at once.
 */
import type { Database } from './postgres.ts'

/** Revocations that one look takes up; each is at work with its first statement by the next. */
const AT_ONCE = 200

/** Ids of revocations that run, the oldest first, without those that are in hand already. Relies on revocations_running. */
export const readRunning = async (db: Database, inHand: readonly string[]): Promise<string[]> => {
  const rows = await db.$queryRawUnsafe<{ id: string }[]>(
    `SELECT id::text AS id FROM revocations WHERE state = 'running' AND id::text <> ALL($1::text[]) ORDER BY id LIMIT ${AT_ONCE}`, inHand,
  )
  return rows.map(({ id }) => id)
}

// No longer than the last of its commits, its rules and its own end took. OFFSET 0: each by its own look-up.
const ENFORCED = `
WITH told AS MATERIALIZED (
  SELECT r.id, r.committed_at, c.enforced_at FROM (
    SELECT id, committed_at FROM revocations
    WHERE enforced_at IS NULL AND state IN ('done', 'cancelled') AND ($1::text IS NULL OR id = $1::text::uuid) ORDER BY id LIMIT ${AT_ONCE}) r
  CROSS JOIN LATERAL (
    SELECT max(enforced_at) AS enforced_at, coalesce(bool_and(enforced_at IS NOT NULL), true) AS enforced FROM commits WHERE revocation_id = r.id OFFSET 0) c
  WHERE c.enforced AND NOT EXISTS (SELECT FROM cutoff_rules k WHERE k.revocation_id = r.id AND k.version > $2::text::bigint)
)
UPDATE revocations r SET enforced_at = coalesce(greatest(t.committed_at, t.enforced_at), clock_timestamp())
FROM told t WHERE r.id = t.id AND r.enforced_at IS NULL`

/**
 * Sets the second clock of revocations that have ended, all of whose commits are enforced, and whose rules are on the
 * stream. Returns of how many.
 *
 * @param revocationId null: of all of them.
 * @param ruleOnStream the version up to which rules are there; null: there is no stream to be on.
 */
export const recordEnforced = (
  db: Database,
  { revocationId, ruleOnStream }: { revocationId: string | null; ruleOnStream: bigint | null },
): Promise<number> => db.$executeRawUnsafe(ENFORCED, revocationId, String(ruleOnStream ?? 9_223_372_036_854_775_807n))

/** More commits than revocations make in the time that matters. */
const NEWEST = 300

/** How many milliseconds ago the newest commit was made that belongs to no revocation; null where none is among the newest. */
export const readInteractiveAge = async (db: Database): Promise<number | null> => {
  const [row] = await db.$queryRawUnsafe<{ age: number | null }[]>(
    `SELECT (extract(epoch FROM clock_timestamp() - max(committed_at)) * 1000)::float8 AS age
     FROM (SELECT revocation_id, committed_at FROM commits ORDER BY id DESC LIMIT ${NEWEST}) c WHERE revocation_id IS NULL`,
  )
  return row?.age ?? null
}
