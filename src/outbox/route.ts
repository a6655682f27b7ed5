/**
 * The route lane: plans a delivery for each receiver of each session that a commit ended, and wakes the receivers.
 *
 * Everything it knows is in Postgres, so a lost wake-up loses nothing: `upkeep` calls it again. Repeating it is
 * harmless: a commit is marked in the transaction that plans its deliveries.
 */
import { routeCommits } from '../store/routing.ts'
import type { Database } from '../store/postgres.ts'

/** @param wakeReceiver tells that a receiver has something due; best effort, never throws. */
export const createRoute = (deps: {
  db: Database
  wakeReceiver: (receiverId: string) => void
  maxTokenLifetimeSeconds: number
  /** Aborted when the process stops: the slice under way is the last, and others find the rest. */
  signal?: AbortSignal
}): (() => Promise<void>) => {
  const { db, wakeReceiver, maxTokenLifetimeSeconds, signal } = deps

  /** Hands on commits until none is left that nobody else holds. */
  return async () => {
    let more: boolean
    do {
      const slice = await routeCommits(db, { maxTokenLifetimeSeconds })
      for (const id of slice.receiverIds) wakeReceiver(id)
      more = slice.more
    } while (more && signal?.aborted !== true)
  }
}
