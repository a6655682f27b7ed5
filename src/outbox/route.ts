/**
 * The route lane: plans a delivery for each receiver of each session that a commit ended, and wakes the receivers.
 *
 * Everything it knows is in Postgres, so a lost wake-up loses nothing: `upkeep` calls it again. Repeating it is
 * harmless: a commit is marked in the transaction that plans its deliveries.
 */
import { setTimeout as wait } from 'node:timers/promises'
import { routeCommits } from '../store/routing.ts'
import type { Database } from '../store/postgres.ts'

/**
 * Whoever records that caches were told of a commit holds it for as long as Postgres takes to flush: mostly in the moment
 * after it was made, when the router looks too.
 */
const HELD_MS = 20
/** Waits in one run. What is held for longer than they last is held by something else, and upkeep's. */
const MAX_HELD_WAITS = 10

/** @param wakeReceiver tells that a receiver has something due; best effort, never throws. */
export const createRoute = (deps: {
  db: Database
  wakeReceiver: (receiverId: string) => void
  maxTokenLifetimeSeconds: number
  /** Aborted when the process stops: the slice under way is the last, and others find the rest. */
  signal?: AbortSignal
}): (() => Promise<void>) => {
  const { db, wakeReceiver, maxTokenLifetimeSeconds, signal } = deps

  /** Hands on commits until none is left, or only those that somebody else holds for long. */
  return async () => {
    let waits = 0
    for (;;) {
      const slice = await routeCommits(db, { maxTokenLifetimeSeconds })
      for (const id of slice.receiverIds) wakeReceiver(id)
      if (signal?.aborted === true) return
      if (slice.more) continue
      if (!slice.passedOver || waits === MAX_HELD_WAITS) return
      waits += 1
      await wait(HELD_MS)
    }
  }
}
