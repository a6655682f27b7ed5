/**
 * Dead letters made due again: at once, with their attempts and their horizon begun anew. What is moot by now stays as
 * it is, unless moot deliveries are asked for by that name: then they are told although the session and its tokens
 * have expired by themselves, because a receiver may keep sessions for longer.
 *
 * Locks deliveries in id order, and passes over those that someone else holds; of a revocation, its notifications before.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { CurfewError } from '../errors.ts'
import { DELIVERY_COLUMNS } from './deliveries.ts'
import type { DeliveryRow } from './deliveries.ts'
import { IN_LINE, MOVE_ON, PACE, underLock } from './notifications.ts'
import type { Database } from './postgres.ts'
import { WITHIN, getReceiver, scopeOf } from './receivers.ts'
import type { Within } from './receivers.ts'

export const deadStates = ['failed', 'moot'] as const
export type DeadState = (typeof deadStates)[number]

/** Whoever plans for a revocation holds it for some ten milliseconds at a time. */
const BUSY_MS = 20
const MAX_BUSY = 100

/** Made due by one statement: some tens of milliseconds. */
const AT_ONCE = 5_000
/** Made due by one call, which answers within seconds; the caller is told that there are more. */
const MAX_OF_ONE_CALL = 100_000

/** `$1` is how long something moot is tried, in seconds. */
const RENEW = `state = 'pending', attempts = 0, due_at = now(), redelivered_at = now(), done_at = NULL,
  moot_at = CASE WHEN d.state = 'moot' THEN greatest(d.moot_at, now() + make_interval(secs => $1::float8)) ELSE d.moot_at END`
const IS_DEAD = `(d.state = 'moot' OR (d.state = 'failed' AND d.moot_at > now()))`

const REDELIVER_SLICE = `
WITH dead AS MATERIALIZED (
  SELECT d.id FROM deliveries d
  WHERE d.receiver_id = $2 AND d.state = $3::text::delivery_state AND ${IS_DEAD}
  ORDER BY d.id LIMIT $4 FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE deliveries d SET ${RENEW} FROM dead WHERE d.id = dead.id`

export interface Redelivered {
  readonly redelivered: number
  /** There are more than one call makes due. */
  readonly more: boolean
}

/**
 * Makes a receiver's dead letters due again, oldest first and in bounded steps. May be repeated: what is due already is
 * no dead letter.
 *
 * @throws CurfewError receiver_not_found for an unknown receiver and for one beyond the caller's reach.
 */
export const redeliverAll = async (
  db: Database,
  { receiverId, state, horizonSeconds, ...within }: Within & { receiverId: string; state: DeadState; horizonSeconds: number },
): Promise<Redelivered> => {
  await getReceiver(db, { id: receiverId, ...within })
  let redelivered = 0
  let renewed: number
  do {
    renewed = await db.$executeRawUnsafe(REDELIVER_SLICE, horizonSeconds, receiverId, state, AT_ONCE)
    redelivered += renewed
  } while (renewed === AT_ONCE && redelivered < MAX_OF_ONE_CALL)
  return { redelivered, more: renewed === AT_ONCE }
}

// In line where its deliveries are paced, and held while it is paused. `$1` is the revocation here, as `PACE` has it.
const REDELIVER_SLICE_OF_REVOCATION = `
WITH what AS MATERIALIZED (${PACE}
), held AS MATERIALIZED (
  SELECT l.id, row_number() OVER (ORDER BY l.id) AS n FROM (
    SELECT d.id FROM deliveries d WHERE d.revocation_id = $1::text::uuid AND d.state = $3::text::delivery_state AND ${IS_DEAD}
    ORDER BY d.id LIMIT $4 FOR NO KEY UPDATE SKIP LOCKED) l
), renewed AS (
  UPDATE deliveries d SET state = 'pending', attempts = 0, redelivered_at = now(), done_at = NULL, held_until = ${IN_LINE},
    due_at = CASE WHEN $5::boolean THEN 'infinity' ELSE ${IN_LINE} END,
    moot_at = CASE WHEN d.state = 'moot' THEN greatest(d.moot_at, ${IN_LINE} + make_interval(secs => $2::float8)) ELSE d.moot_at END
  FROM held h CROSS JOIN what w WHERE d.id = h.id AND d.id = ANY(ARRAY(SELECT id FROM held))
  RETURNING d.receiver_id
), moved AS (${MOVE_ON} AND NOT $5::boolean)
SELECT (SELECT count(*) FROM held)::int AS renewed, ARRAY(SELECT DISTINCT receiver_id FROM renewed) AS "receiverIds"`

/**
 * Makes a revocation's dead letters due again, oldest first and in bounded steps, also what was cancelled. May be repeated.
 *
 * @param wake called with receivers that something is due for, after it is committed.
 * @throws CurfewError overloaded where others plan for it all the time.
 */
export const redeliverOfRevocation = async (
  db: Database,
  asked: { revocationId: string; state: DeadState; horizonSeconds: number; wake: (receiverIds: readonly string[]) => void },
): Promise<Redelivered> => {
  const { revocationId, state, horizonSeconds, wake } = asked
  const slice = (): Promise<{ renewed: number; receiverIds: string[] } | null> =>
    underLock(db, revocationId, async (tx, { notifications }) => {
      const [row] = await tx.$queryRawUnsafe<{ renewed: number; receiverIds: string[] }[]>(
        REDELIVER_SLICE_OF_REVOCATION, revocationId, horizonSeconds, state, AT_ONCE, notifications === 'paused')
      return row ?? null
    })
  let redelivered = 0
  let busy = 0
  for (;;) {
    const made = await slice()
    if (made === null) {
      busy += 1
      if (busy > MAX_BUSY) throw new CurfewError('overloaded', { says: 'This revocation is being handed on, ask again shortly' })
      await pause(BUSY_MS)
      continue
    }
    wake(made.receiverIds)
    redelivered += made.renewed
    if (made.renewed < AT_ONCE) return { redelivered, more: false }
    if (redelivered >= MAX_OF_ONE_CALL) return { redelivered, more: true }
  }
}

// `$1` to `$3` are the scope here, as `WITHIN` has it.
const FIND = `
SELECT d.receiver_id AS "receiverId", d.state = 'pending' AS due FROM deliveries d JOIN receivers r ON r.id = d.receiver_id
WHERE d.id = $4::text::bigint AND ${WITHIN}`

const REDELIVER_ONE = `
WITH renewed AS (UPDATE deliveries d SET ${RENEW} WHERE d.id = $2::text::bigint AND ${IS_DEAD} RETURNING d.*)
SELECT ${DELIVERY_COLUMNS} FROM renewed d`

const READ_ONE = `SELECT ${DELIVERY_COLUMNS} FROM deliveries d WHERE d.id = $1::text::bigint`

/**
 * Makes one dead letter due again and returns it. May be repeated: one that is due already is returned as it is.
 *
 * @throws CurfewError delivery_not_found for an unknown delivery and for one of a receiver beyond the caller's reach,
 * delivery_not_dead for one that was acknowledged, or failed and is moot by now.
 */
export const redeliverOne = async (
  db: Database,
  { id, horizonSeconds, ...within }: Within & { id: string; horizonSeconds: number },
): Promise<DeliveryRow> => {
  const [found] = await db.$queryRawUnsafe<{ receiverId: string; due: boolean }[]>(FIND, ...scopeOf(within), id)
  if (found === undefined) throw new CurfewError('delivery_not_found')
  const rows = found.due
    ? await db.$queryRawUnsafe<DeliveryRow[]>(READ_ONE, id)
    : await db.$queryRawUnsafe<DeliveryRow[]>(REDELIVER_ONE, horizonSeconds, id)
  const [row] = rows
  if (row === undefined) throw new CurfewError('delivery_not_dead')
  return row
}
