/**
 * The slices of a revocation: stretches of the index that it walks, each with where its pass has come to, and exact
 * counts. The first slice has no end; others are cut off its beginning as they can be worked at beside each other, so
 * a revocation of any size begins at once.
 *
 * Lock order: whoever changes a revocation's row takes it first (FOR NO KEY UPDATE), then waits for chunks, which wait for
 * nobody. No slice is cut meanwhile: a new one would not be waited for.
 */
import type { Containment, RevocationExclusions, RevocationFilter, RevocationScope, RevocationState } from '../model.ts'
import type { Database } from './postgres.ts'
import { entriesOf, keyOf } from './revocation-walk.ts'
import type { Walk, WalkKind } from './revocation-walk.ts'
import { createStatement } from './statement.ts'
import { wireTime } from './wire-time.ts'

/** A revocation as far as the engine goes. */
export interface RevocationRun {
  readonly state: RevocationState
  readonly containment: Containment
  readonly scope: RevocationScope
  /** 0: no slice was made yet. */
  readonly pass: number
  readonly walks: WalkKind | null
  /** Slices of this pass that have not ended. */
  readonly open: number
  /** Sessions that this pass met and could not end. */
  readonly missed: number
  /** Milliseconds until nothing can be born any more that it means. */
  readonly untilCutoffMs: number
}

interface RunRow extends Omit<RevocationRun, 'scope'> {
  readonly issuers: readonly string[]
  readonly instance: boolean
  readonly organizations: readonly string[]
  readonly filter: RevocationFilter
  readonly exclude: RevocationExclusions
  readonly cutoff: string
}

/** @returns null where there is none. */
export const readRun = async (db: Database, revocationId: string): Promise<RevocationRun | null> => {
  const [row] = await db.$queryRawUnsafe<RunRow[]>(
    `SELECT r.state::text AS state, r.containment, r.issuers, r.instance, r.organizations, r.filter, r.exclude, ${wireTime('r.cutoff_time')} AS cutoff,
       r.pass, l.walks, coalesce(l.open, 0)::int AS open, coalesce(l.missed, 0)::float8 AS missed,
       (extract(epoch FROM r.cutoff_time - clock_timestamp()) * 1000)::float8 AS "untilCutoffMs"
     FROM revocations r CROSS JOIN LATERAL (
       SELECT max(walks) AS walks, count(*) FILTER (WHERE NOT ended) AS open, sum(matched - terminated) AS missed FROM revocation_slices WHERE revocation_id = r.id) l
     WHERE r.id = $1::text::uuid`,
    revocationId,
  )
  if (row === undefined) return null
  const { issuers, instance, organizations, filter, exclude, cutoff, ...run } = row
  return { ...run, scope: { issuers, reach: instance ? 'instance' : new Set(organizations), filter, exclude, cutoff } }
}

/** Makes the first slice, or none where nothing can be meant. May be repeated: the first walk that was chosen stays. */
export const beginPasses = async (db: Database, revocationId: string, walk: Walk | null): Promise<void> => {
  await db.$executeRawUnsafe(
    `WITH begun AS (UPDATE revocations SET pass = 1 WHERE id = $1::text::uuid AND pass = 0 AND state = 'running' RETURNING id)
     INSERT INTO revocation_slices (revocation_id, number, walks, start_key, until_key, at_key)
     SELECT id, 1, $2::text, '{}', '{}', '{}' FROM begun WHERE $2::text IS NOT NULL`,
    revocationId, walk?.kind ?? null,
  )
}

/** `short`: less is left of the last slice. `held`: somebody works at it or cuts just now, or it has ended. */
export type Cut = 'cut' | 'short' | 'held'

/**
 * Cuts a slice of so many entries off the last one, which begins behind it from then on. What was counted so far stays
 * with the last one: only sums are told.
 *
 * The number is the next that this statement's snapshot knows. Where another cut was committed between the snapshot and the
 * lock, that number is taken, and nothing is changed.
 */
export const cutSlice = async (db: Database, { revocationId, walk, entries }: { revocationId: string; walk: Walk; entries: number }): Promise<Cut> => {
  const { values, next } = createStatement()
  const [id, most] = [`${next(revocationId)}::text::uuid`, `${next(entries)}::int`]
  const walked = entriesOf(walk, next, { match: null, most, after: '(SELECT at_key FROM last)' })
  const [row] = await db.$queryRawUnsafe<{ cut: Cut }[]>(
    `WITH unsteered AS MATERIALIZED (
       SELECT id FROM revocations WHERE id = ${id} AND state = 'running' FOR SHARE SKIP LOCKED
     ), last AS MATERIALIZED (
       SELECT number, walks, start_key, at_key, pass FROM revocation_slices
       WHERE revocation_id = (SELECT id FROM unsteered) AND until_key = '{}' AND NOT ended FOR UPDATE SKIP LOCKED
     ), end_of AS MATERIALIZED (
       SELECT ${keyOf(walk, 'e')} AS key FROM (
         SELECT e.*, row_number() OVER () AS at FROM (${walked}) e WHERE EXISTS (SELECT FROM last)) e WHERE e.at = ${most}
     ), cut AS (
       INSERT INTO revocation_slices (revocation_id, number, walks, start_key, until_key, at_key, pass)
       SELECT ${id}, (SELECT max(number) + 1 FROM revocation_slices WHERE revocation_id = ${id}), l.walks, l.start_key, e.key, l.at_key, l.pass
       FROM last l CROSS JOIN end_of e
       ON CONFLICT (revocation_id, number) DO NOTHING
       RETURNING number
     ), shortened AS (
       UPDATE revocation_slices l SET start_key = e.key, at_key = e.key FROM end_of e
       WHERE l.revocation_id = ${id} AND l.number = (SELECT number FROM last) AND EXISTS (SELECT FROM cut)
     )
     SELECT CASE WHEN EXISTS (SELECT FROM cut) THEN 'cut' WHEN EXISTS (SELECT FROM last) AND NOT EXISTS (SELECT FROM end_of) THEN 'short' ELSE 'held' END AS cut`,
    ...values,
  )
  return row?.cut ?? 'held'
}

/**
 * Begins the next pass, where this one has ended and still runs. What this one met and could not end is met anew, so it
 * no longer counts as matched. Two processes may both ask; it begins once.
 */
export const beginNextPass = async (db: Database, revocationId: string, pass: number): Promise<void> => {
  await db.$executeRawUnsafe(
    `WITH next AS (UPDATE revocations SET pass = pass + 1 WHERE id = $1::text::uuid AND pass = $2::int AND state = 'running' RETURNING id, pass)
     UPDATE revocation_slices l SET pass = n.pass, at_key = l.start_key, ended = false, found = 0, matched = l.terminated
     FROM next n WHERE l.revocation_id = n.id`,
    revocationId, pass,
  )
}

/** Says that nothing is left, where this pass is still the one that was proven. Returns false where it is not. */
export const finishRevocation = async (db: Database, revocationId: string, pass: number): Promise<boolean> => {
  const told = await db.$executeRawUnsafe(
    `WITH done AS (
       UPDATE revocations SET state = 'done', pass = pass + 1, committed_at = clock_timestamp(), changed_at = clock_timestamp()
       WHERE id = $1::text::uuid AND pass = $2::int AND state = 'running' RETURNING id, committed_at)
     INSERT INTO revocation_events (revocation_id, type, created_at) SELECT id, 'revocation.committed', committed_at FROM done`,
    revocationId, pass,
  )
  return told === 1
}

/**
 * Waits for the chunks under way. For whoever has just changed a revocation's state, in the same transaction: when
 * that commits, nothing more is ended by it.
 */
export const awaitChunks = async (tx: Pick<Database, '$queryRawUnsafe'>, revocationId: string): Promise<void> => {
  await tx.$queryRawUnsafe('SELECT number FROM revocation_slices WHERE revocation_id = $1::text::uuid ORDER BY number FOR UPDATE', revocationId)
}
