/**
 * How fast one receiver may be sent to: how many attempts at once, from what it has shown, and of which slots.
 *
 * Concurrency starts at one, rises by one with every quick answer up to the receiver's own limit, and halves on failure. A
 * receiver that is not known to be quick gets one attempt (never tried, or probed after its breaker opened) or two (slow).
 */
import type { Pace } from './slots.ts'

/** Slower than this and a receiver takes slow slots. */
const QUICK_MS = 500
/** An attempt that takes longer than this is taken to hang: it is set aside. */
export const OVERDUE_MS = 1_000
/** One more with each answer doubles it every round trip, so a low start costs a healthy receiver milliseconds. */
const START = 1
const SLOW_LIMIT = 2

export interface ReceiverPace {
  pace(): Pace
  /** Attempts that may be in flight now. */
  limit(): number
  answered(tookMs: number): void
  failed(): void
  overdue(): void
}

/** @param known what an earlier drain has learnt of it, or null. */
export const createPace = (deps: { maxConcurrency: number; known: Pace }): ReceiverPace => {
  const { maxConcurrency } = deps
  let pace = deps.known
  let limit = START

  return {
    pace: () => pace,
    limit: () => {
      if (pace === 'unproven') return 1
      return pace === 'slow' ? Math.min(limit, SLOW_LIMIT) : limit
    },
    answered: (tookMs) => {
      pace = tookMs < QUICK_MS ? 'quick' : 'slow'
      limit = Math.min(maxConcurrency, limit + 1)
    },
    failed: () => {
      limit = Math.max(1, Math.floor(limit / 2))
    },
    overdue: () => {
      pace = 'slow'
    },
  }
}
