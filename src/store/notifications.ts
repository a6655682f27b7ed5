/**
 * Whose turn it is to plan, hold or release a revocation's deliveries, and which revocations have something to be done.
 *
 * Lock order: a revocation's notifications come first, then commits, receivers, deliveries, outcomes.
 */
import type { NotificationState, RevocationState } from '../model.ts'
import type { Statements } from './deliveries.ts'
import type { Database } from './postgres.ts'

// What follows in the transaction is planned each time anew, for the tables as they are: that costs a few milliseconds for
// thousands of rows, and a plan from when they were small would read all of a receiver's deliveries for each user.
const HOLD = `
SELECT r.deliveries_per_second IS NOT NULL AS paced, set_config('plan_cache_mode', 'force_custom_plan', true)
FROM revocations r JOIN revocation_notifications n ON n.revocation_id = r.id
WHERE r.id = $1::text::uuid FOR NO KEY UPDATE OF n SKIP LOCKED`

/**
 * Holds a revocation's notifications until the transaction ends; null where someone else does, or there is no such revocation.
 * What is then read is read by a statement after this one: only that sees all that the last holder did.
 */
export const holdNotifications = async (tx: Statements, revocationId: string): Promise<{ readonly paced: boolean } | null> => {
  const [row] = await tx.$queryRawUnsafe<{ paced: boolean }[]>(HOLD, revocationId)
  return row ?? null
}

/** A revocation whose caches cannot be told yet is told of as completed without its second clock after so long. */
const ENFORCED_WITHIN_SECONDS = 60

const READ = `
SELECT r.state::text AS state, r.notifications::text AS notifications, n.applied::text AS applied, n.ended_at IS NOT NULL AS ended,
  EXISTS (SELECT FROM commits WHERE revocation_id = r.id AND routed_at IS NULL) AS unrouted,
  r.enforced_at IS NOT NULL OR coalesce(r.committed_at, r.changed_at) <= now() - interval '${ENFORCED_WITHIN_SECONDS} seconds' AS enforced
FROM revocations r JOIN revocation_notifications n ON n.revocation_id = r.id WHERE r.id = $1::text::uuid`

/** What is to be done for its notifications. */
export interface NotificationFacts {
  readonly state: RevocationState
  /** How it is steered. */
  readonly notifications: NotificationState
  /** The steering that its deliveries were last brought in line with. */
  readonly applied: NotificationState
  /** Its end was handed on. */
  readonly ended: boolean
  /** Some of what it ended is not yet planned. */
  readonly unrouted: boolean
  /** Its second clock is known, or has been waited for. */
  readonly enforced: boolean
}

/** Makes one step under the lock, in a transaction. Null where someone else holds it. */
export const underLock = <T>(
  db: Database,
  revocationId: string,
  step: (tx: Statements, facts: NotificationFacts) => Promise<T>,
): Promise<T | null> =>
  db.$transaction(async (tx) => {
    if ((await holdNotifications(tx, revocationId)) === null) return null
    const [facts] = await tx.$queryRawUnsafe<NotificationFacts[]>(READ, revocationId)
    return facts === undefined ? null : step(tx, facts)
  })

/** `w` where deliveries are to be put in line: its rate, or null, and where the next one comes. `$1` is the revocation. */
export const PACE = `
SELECT r.id, r.deliveries_per_second AS rate, greatest(n.paced_to, now()) AS from_at
FROM revocations r JOIN revocation_notifications n ON n.revocation_id = r.id WHERE r.id = $1::text::uuid`

/** When one is due, of rows `h` with numbers from 1. */
export const IN_LINE = `coalesce(w.from_at + make_interval(secs => (h.n - 1)::float8 / w.rate), now())`

/** Moves the line on by those in `held`; a condition may follow. */
export const MOVE_ON = `
UPDATE revocation_notifications n SET paced_to = w.from_at + make_interval(secs => (SELECT count(*) FROM held)::float8 / w.rate)
FROM what w WHERE n.revocation_id = w.id AND w.rate IS NOT NULL`

/** Counts what `planned` has planned for a revocation, in the order of receivers. */
export const countPlanned = (revocation: string): string => `counted AS (
  INSERT INTO revocation_outcomes AS o (revocation_id, receiver_id, total, pending, failed)
  SELECT ${revocation}, receiver_id, count(*), count(*) FILTER (WHERE state = 'pending'), count(*) FILTER (WHERE state = 'failed')
  FROM planned GROUP BY receiver_id ORDER BY receiver_id
  ON CONFLICT (revocation_id, receiver_id) DO UPDATE
  SET total = o.total + excluded.total, pending = o.pending + excluded.pending, failed = o.failed + excluded.failed
)`

const NEXT = `
SELECT id::text AS id FROM (
  (SELECT revocation_id AS id FROM commits WHERE routed_at IS NULL AND revocation_id IS NOT NULL AND revocation_id > $1::text::uuid ORDER BY revocation_id LIMIT 1)
  UNION ALL
  (SELECT revocation_id FROM revocation_turns WHERE revocation_id > $1::text::uuid ORDER BY revocation_id LIMIT 1)) n
ORDER BY n.id LIMIT 1`

/** Before every revocation. */
export const BEFORE_ALL_REVOCATIONS = '00000000-0000-0000-0000-000000000000'

/**
 * The next revocation, in the order of ids, of which something is to be planned, held or released; null: there is none after
 * this one. Relies on commits_of_revocations_unrouted and revocation_turns_pkey.
 */
export const nextToHandOn = async (db: Database, after: string): Promise<string | null> => {
  const [row] = await db.$queryRawUnsafe<{ id: string }[]>(NEXT, after)
  return row?.id ?? null
}

/** Its turns that are still open: it was steered or has ended since its notifications were last in line. */
export const readTurns = async (db: Database, revocationId: string): Promise<string[]> => {
  const rows = await db.$queryRawUnsafe<{ position: string }[]>(
    'SELECT position::text AS position FROM revocation_turns WHERE revocation_id = $1::text::uuid', revocationId,
  )
  return rows.map(({ position }) => position)
}

/** These turns are done. They must have been read before what was done about them. */
export const closeTurns = async (db: Database, revocationId: string, positions: readonly string[]): Promise<void> => {
  await db.$executeRawUnsafe(
    'DELETE FROM revocation_turns WHERE revocation_id = $1::text::uuid AND position = ANY($2::text[]::bigint[])', revocationId, positions,
  )
}
