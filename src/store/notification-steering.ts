/**
 * Brings a revocation's pending deliveries in line with how it is steered, in bounded steps under the lock on its
 * notifications:
 *
 * - paused: they are held (due at infinity). What a drain has in hand is still sent, and held afterwards.
 * - resumed: they are due again, in line where deliveries are paced; their horizon begins there.
 * - cancelled: they are dead letters, `cancelled`, and can be sent again by hand.
 *
 * Rows that a drain records at this moment are passed over, and met by the next pass. Whatever was begun before, by a
 * steering that another one overtook, is brought in line too. May be repeated.
 */
import type { NotificationState } from '../model.ts'
import type { Database } from './postgres.ts'
import { IN_LINE, MOVE_ON, PACE, underLock } from './notifications.ts'

/** Deliveries looked at by one statement: some ten milliseconds, some hundred where all of them change. */
const AT_ONCE = 5_000

/** Which of the pending change, and how. Those that are held are found by deliveries_held, so what runs costs them alone. */
const ways = {
  paused: { among: 'true', which: `due_at < 'infinity'`, set: `due_at = 'infinity'` },
  running: { among: `due_at = 'infinity'`, which: `last_outcome IS DISTINCT FROM 'waiting'`, set: `due_at = ${IN_LINE}, held_until = ${IN_LINE}` },
  cancelled: { among: 'true', which: 'true', set: `state = 'failed', done_at = now(), last_outcome = 'cancelled'` },
} as const satisfies Record<NotificationState, { among: string; which: string; set: string }>

// The list of ids leaves Postgres the primary key alone to find the rows by.
const stepOf = (way: NotificationState): string => `
WITH what AS MATERIALIZED (${PACE}
), seen AS MATERIALIZED (
  SELECT id, ${ways[way].which} AS meant FROM deliveries
  WHERE revocation_id = $1::text::uuid AND state = 'pending' AND ${ways[way].among} AND id > $2::text::bigint ORDER BY id LIMIT ${AT_ONCE}
), held AS MATERIALIZED (
  SELECT l.id, row_number() OVER (ORDER BY l.id) AS n FROM (
    SELECT id FROM deliveries WHERE id = ANY(ARRAY(SELECT id FROM seen WHERE meant)) AND state::text = 'pending' AND ${ways[way].among} AND ${ways[way].which}
    ORDER BY id FOR NO KEY UPDATE SKIP LOCKED) l
), changed AS (
  UPDATE deliveries d SET ${ways[way].set} FROM held h CROSS JOIN what w WHERE d.id = h.id AND d.id = ANY(ARRAY(SELECT id FROM held))
  RETURNING d.receiver_id, d.due_at, d.state
)${way === 'running' ? `, moved AS (${MOVE_ON})` : ''}
SELECT (SELECT count(*) = ${AT_ONCE} FROM seen) AS more, (SELECT max(id) FROM seen)::text AS last,
  (SELECT count(*) FROM seen WHERE meant)::int AS found,
  ARRAY(SELECT DISTINCT receiver_id FROM changed WHERE state = 'pending' AND due_at < 'infinity') AS "receiverIds"`

const STEPS = { paused: stepOf('paused'), running: stepOf('running'), cancelled: stepOf('cancelled') }

// Once all are held or cancelled nobody has a place in the line any more: those who are resumed or sent again begin it anew.
const APPLIED = `UPDATE revocation_notifications SET applied = $2::text::notification_state, paced_to = CASE WHEN $2 = 'running' THEN paced_to END
WHERE revocation_id = $1::text::uuid`

export interface SteeringStep {
  /** False at the end of the pass. */
  readonly more: boolean
  /** Where the next step goes on. */
  readonly last: string | null
  /** Of those seen, how many were not yet in line. A pass that finds none proves that none is left. */
  readonly found: number
  /** Who has something due by it. */
  readonly receiverIds: readonly string[]
}

const NOTHING: SteeringStep = { more: false, last: null, found: 0, receiverIds: [] }

/**
 * One step of a pass, after the delivery `after` ('0' begins one). A pass that found nothing is the last.
 *
 * @param found by this pass before. @returns null where someone else plans, holds or releases for it.
 */
export const steerNotifications = (
  db: Database,
  { revocationId, after, found }: { revocationId: string; after: string; found: number },
): Promise<SteeringStep | null> =>
  underLock(db, revocationId, async (tx, { notifications, applied }) => {
    // Once they are cancelled that is final: what is pending since then was sent again by hand.
    if (notifications === 'cancelled' && applied === 'cancelled') return NOTHING
    const [step] = await tx.$queryRawUnsafe<SteeringStep[]>(STEPS[notifications], revocationId, after)
    if (step === undefined) throw new Error('A step returned no row')
    if (!step.more && found + step.found === 0) await tx.$queryRawUnsafe(APPLIED, revocationId, notifications)
    return step
  })
