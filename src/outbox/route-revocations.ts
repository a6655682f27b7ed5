/**
 * Hands on what revocations ended: a slice of one, then of the next, so that a small one does not wait for a large one. And
 * brings their deliveries in line with how they are steered, and hands on their end.
 *
 * Everything it knows is in Postgres, so a lost wake-up loses nothing: `upkeep` calls it again. Repeating it is harmless, and
 * so are several at once: each revocation is in one's hands at a time, the others pass over it and look again.
 */
import { setTimeout as wait } from 'node:timers/promises'
import { sqlState } from '../store/postgres-failures.ts'
import type { Database } from '../store/postgres.ts'
import { endNotifications } from '../store/notification-end.ts'
import { BEFORE_ALL_REVOCATIONS, closeTurns, nextToHandOn, readTurns } from '../store/notifications.ts'
import { steerNotifications } from '../store/notification-steering.ts'
import { routeRevocation } from '../store/routing-revocations.ts'

/**
 * `busy`: it is in another's hands. `held`: some of its commits are, mostly for a moment (see `route.ts`). `later`: it waits for
 * something else, and upkeep looks again.
 */
type Came = 'done' | 'more' | 'busy' | 'held' | 'later'

/** Two who met over receivers: nothing was written. */
const DEADLOCK = '40P01'
/** A slice takes some ten milliseconds. */
const BUSY_MS = 50
/** Waits in one run for commits that are held; then they are upkeep's. */
const MAX_HELD_WAITS = 5
/** Passes over the same deliveries in one turn; what is still passed over then is left to the next look. */
const MAX_PASSES = 20

/** @param wakeReceiver tells that a receiver has something due; best effort, never throws. */
export const createRouteRevocations = (deps: {
  db: Database
  wakeReceiver: (receiverId: string) => void
  maxTokenLifetimeSeconds: number
  /** Aborted when the process stops: the step under way is the last, and others find the rest. */
  signal?: AbortSignal
}): (() => Promise<void>) => {
  const { db, wakeReceiver, maxTokenLifetimeSeconds, signal } = deps
  let running: Promise<void> | null = null
  let again = false

  const stopped = (): boolean => signal?.aborted === true
  const wake = (ids: readonly string[]): void => ids.forEach((id) => wakeReceiver(id))

  const routeSlice = async (revocationId: string): Promise<Came> => {
    const slice = await routeRevocation(db, { revocationId, maxTokenLifetimeSeconds }).catch((error: unknown) => {
      if (sqlState(error) === DEADLOCK) return 'again' as const
      throw error
    })
    if (slice === null) return 'busy'
    if (slice === 'again') return 'more'
    wake(slice.receiverIds)
    if (slice.more) return 'more'
    return slice.passedOver ? 'held' : 'done'
  }

  /** Passes until one finds nothing that is not in line. */
  const steer = async (revocationId: string): Promise<Came> => {
    for (let passes = 0; passes < MAX_PASSES; passes += 1) {
      let [after, found, more] = ['0', 0, true]
      while (more) {
        if (stopped()) return 'later'
        const step = await steerNotifications(db, { revocationId, after, found })
        if (step === null) return 'busy'
        wake(step.receiverIds)
        ;[after, found, more] = [step.last ?? after, found + step.found, step.more]
      }
      if (found === 0) return 'done'
    }
    return 'later'
  }

  const end = async (revocationId: string): Promise<Came> => {
    for (;;) {
      const step = await endNotifications(db, revocationId)
      if (step === null) return 'busy'
      wake(step.receiverIds)
      if (step.came !== 'more') return step.came
      if (stopped()) return 'later'
    }
  }

  /** Steering comes first, because it may be meant to stop what is planned. */
  const handOn = async (revocationId: string): Promise<Came> => {
    // Read before what is done about them: a turn that comes meanwhile is not closed with these.
    const turns = await readTurns(db, revocationId)
    for (const part of turns.length === 0 ? [routeSlice] : [steer, routeSlice, end]) {
      const came = await part(revocationId)
      if (came !== 'done') return came
    }
    if (turns.length > 0) await closeTurns(db, revocationId, turns)
    return 'done'
  }

  const handOnAll = async (): Promise<void> => {
    for (let waits = 0; ; ) {
      const all = new Set<Came>()
      const failed: unknown[] = []
      let id = await nextToHandOn(db, BEFORE_ALL_REVOCATIONS)
      while (id !== null && !stopped()) {
        // One that fails, perhaps each time, holds up none of those after it.
        await handOn(id).then((came) => all.add(came), (error: unknown) => failed.push(error))
        id = await nextToHandOn(db, id)
      }
      if (stopped()) return
      if (failed.length > 0 && !all.has('more')) throw failed[0]
      if (all.has('more')) continue
      if (!all.has('busy')) {
        if (!all.has('held') || waits === MAX_HELD_WAITS) return
        waits += 1
      }
      await wait(BUSY_MS)
    }
  }

  /** What is asked for while it runs may have come too late for it, so it runs again. */
  const run = async (): Promise<void> => {
    do {
      again = false
      await handOnAll()
    } while (again && !stopped())
  }

  return () => {
    again = true
    running ??= run().finally(() => { running = null })
    return running
  }
}
