/**
 * Revocations go after the sessions that they ended, with their slices, events and outcomes; what was asked and what came
 * of it is kept as long as anything of it can be looked up. Bounded steps, as in `pruning.ts`.
 */
import type { Database } from './postgres.ts'
import type { Pruned } from './pruning.ts'

/** Looked at by one statement; each has some dozen rows more that go with it. */
const AT_ONCE = 100

// Ids are in the order of acceptance, so the walk ends at the first slice of which nothing is old enough.
const PRUNE = `
WITH seen AS MATERIALIZED (
  SELECT id, created_at <= now() - make_interval(secs => $2::float8) AS old,
    state IN ('done', 'cancelled') AND greatest(changed_at, committed_at) <= now() - make_interval(secs => $2::float8) AS over
  FROM revocations WHERE id > $1::text::uuid ORDER BY id LIMIT ${AT_ONCE}
), held AS MATERIALIZED (
  SELECT r.id FROM revocations r
  WHERE r.id = ANY(ARRAY(SELECT id FROM seen WHERE over)) AND r.state IN ('done', 'cancelled')
    AND NOT EXISTS (SELECT FROM commits c WHERE c.revocation_id = r.id) AND NOT EXISTS (SELECT FROM deliveries d WHERE d.revocation_id = r.id)
  ORDER BY r.id FOR UPDATE OF r SKIP LOCKED
), gone_outcomes AS (
  DELETE FROM revocation_outcomes WHERE revocation_id = ANY(ARRAY(SELECT id FROM held))
), gone AS (
  DELETE FROM revocations WHERE id = ANY(ARRAY(SELECT id FROM held)) RETURNING 1
)
SELECT (SELECT count(*) FROM gone)::int AS removed,
  CASE WHEN EXISTS (SELECT FROM seen WHERE old) THEN (SELECT id FROM seen ORDER BY id DESC LIMIT 1)::text END AS next`

/** Before every revocation. */
export const BEFORE_ALL_REVOCATIONS = '00000000-0000-0000-0000-000000000000'

/** Removes revocations that were over before `retentionSeconds`. @param after `BEFORE_ALL_REVOCATIONS` for the first slice. */
export const pruneRevocations = async (
  db: Database,
  { after, retentionSeconds }: { after: string; retentionSeconds: number },
): Promise<Pruned> => {
  const [row] = await db.$queryRawUnsafe<Pruned[]>(PRUNE, after, retentionSeconds)
  if (row === undefined) throw new Error('Pruning returned no row')
  return row
}
