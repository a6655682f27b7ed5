/**
 * The route lane: plans a delivery for each receiver of each session that a commit ended, and wakes the receivers.
 *
 * Everything it knows is in Postgres, so a lost wake-up loses nothing: `upkeep` calls it again. Repeating it is
 * harmless: a commit is marked in the transaction that plans its deliveries.
 */
import { routeCommits } from '../store/routing.ts'
import { sqlState } from '../store/postgres.ts'
import type { Database } from '../store/postgres.ts'

/** A receiver deleted while its deliveries were being planned: nothing was written, and the next look does not see it. */
const FOREIGN_KEY_VIOLATION = '23503'
/** More than one receiver deleted within milliseconds, again and again, is left to the next wake-up. */
const MAX_REPEATS = 3

/** @param wakeReceiver tells that a receiver has something due; best effort, never throws. */
export const createRoute = (deps: {
  db: Database
  wakeReceiver: (receiverId: string) => void
  maxTokenLifetimeSeconds: number
  /** Aborted when the process stops: the slice under way is the last, and others find the rest. */
  signal?: AbortSignal
}): (() => Promise<void>) => {
  const { db, wakeReceiver, maxTokenLifetimeSeconds, signal } = deps

  const routeSlice = async (repeats = 0): ReturnType<typeof routeCommits> => {
    try {
      return await routeCommits(db, { maxTokenLifetimeSeconds })
    } catch (error) {
      if (sqlState(error) !== FOREIGN_KEY_VIOLATION || repeats === MAX_REPEATS) throw error
      return routeSlice(repeats + 1)
    }
  }

  /** Hands on commits until none is left that nobody else holds. */
  return async () => {
    let more: boolean
    do {
      const slice = await routeSlice()
      for (const id of slice.receiverIds) wakeReceiver(id)
      more = slice.more
    } while (more && signal?.aborted !== true)
  }
}
