/**
 * Writes a drain's outcomes in batches, and with them the receiver's health; each write prolongs the lease. One write
 * at a time. A write that fails is repeated until the lease is surely lost; the deliveries are then told again by
 * another drain, which is what a crash between sending and recording comes to.
 */
import { setTimeout as wait } from 'node:timers/promises'
import { performance } from 'node:perf_hooks'
import type { Recorded, RecordedOutcome } from '../store/drains.ts'

export interface Recorder {
  add(outcome: RecordedOutcome): void
  /** Writes what has gathered, or only prolongs the lease where nothing has. Resolves false where the drain is lost or changed. */
  flush(): Promise<boolean>
  /** Outcomes not yet written. */
  waiting(): number
  /** True while the lease is certainly ours: less than it lasts since it was last prolonged. */
  holds(): boolean
}

/** Written at once: bounds how long a statement holds its rows. */
const BATCH = 500
const REPEAT_AFTER_MS = 200

/** @param write one statement over a batch; rejects where it is not known to be written. */
export const createRecorder = (deps: {
  write: (outcomes: readonly RecordedOutcome[]) => Promise<Recorded>
  leaseMs: number
  /** Aborted when the process stops: a write that fails is then left, not repeated. */
  signal: AbortSignal
  onFailure: (error: unknown) => void
}): Recorder => {
  const { write, leaseMs, signal, onFailure } = deps
  let gathered: RecordedOutcome[] = []
  let prolongedAtMs = performance.now()
  let mine = true
  let last: Promise<unknown> = Promise.resolve()

  const holds = (): boolean => mine && performance.now() - prolongedAtMs < leaseMs

  const writeBatch = async (batch: readonly RecordedOutcome[]): Promise<boolean> => {
    for (;;) {
      const askedAtMs = performance.now()
      try {
        const { same } = await write(batch)
        if (same === null) mine = false
        else prolongedAtMs = askedAtMs
        return same === true
      } catch (error) {
        onFailure(error)
        if (!holds() || signal.aborted) {
          mine = false
          return false
        }
        await wait(REPEAT_AFTER_MS)
      }
    }
  }

  const flush = (): Promise<boolean> => {
    const flushed = last.then(async () => {
      let good = true
      do {
        const batch = gathered.slice(0, BATCH)
        gathered = gathered.slice(BATCH)
        good = await writeBatch(batch) && good
      } while (gathered.length >= BATCH)
      return good
    })
    last = flushed
    return flushed
  }

  return {
    add: (outcome) => void gathered.push(outcome),
    flush,
    waiting: () => gathered.length,
    holds,
  }
}
