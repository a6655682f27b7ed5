/**
 * What a drain has read and not yet sent. It reads in the order in which deliveries became due, each slice after the one
 * before, so that what is done already is not walked over again; a slice that comes back short ends the pass, and
 * the next begins from the start, because what became due late may lie behind.
 */
import { performance } from 'node:perf_hooks'
import type { DrainCursor, DueDelivery } from '../store/drains.ts'

/** Reads up to `limit` due deliveries after `after`, without those of `inHand`. */
export type ReadDue = (asked: { inHand: readonly string[]; after: DrainCursor | null; limit: number }) => Promise<DueDelivery[]>

export interface Ahead {
  readonly delivery: DueDelivery
  readonly readAtMs: number
}

export interface ReadAhead {
  next(): Ahead | undefined
  waiting(): number
  /** True where reading now may find something that sending will soon need. @param concurrency attempts at once. */
  wantsMore(concurrency: number): boolean
  /** Reads one slice; one at a time. Returns those of it that are moot, which are not sent. */
  read(concurrency: number): Promise<DueDelivery[]>
  /** These are recorded: should they be due again, they may be read again. */
  done(ids: Iterable<string>): void
  /** Nothing is waiting and the last slice came back short. */
  isEmpty(): boolean
}

/** Enough for each attempt in flight that reading never holds sending up. */
const AHEAD_PER_ATTEMPT = 16
const MIN_SLICE = 20
/** Bounds what one drain holds in memory, and what is told again after a crash. */
const MAX_SLICE = 500

export const createReadAhead = ({ readDue }: { readDue: ReadDue }): ReadAhead => {
  let queue: Ahead[] = []
  let taken = 0
  let takenSinceRead = 0
  const inHand = new Set<string>()
  let after: DrainCursor | null = null
  let isShort = false
  /** From the second pass on, what is in hand may lie after the cursor. */
  let isFirstPass = true

  const sliceFor = (concurrency: number): number => Math.min(MAX_SLICE, Math.max(MIN_SLICE, concurrency * AHEAD_PER_ATTEMPT))
  const waiting = (): number => queue.length - taken

  return {
    next: () => {
      const ahead = queue[taken]
      if (ahead === undefined) return undefined
      taken += 1
      takenSinceRead += 1
      // A shift for each would move the whole queue each time.
      if (taken === queue.length) [queue, taken] = [[], 0]
      return ahead
    },
    waiting,
    // A slice that came back short is followed by another once much of it is taken: more may be due by then.
    wantsMore: (concurrency) => waiting() < sliceFor(concurrency) / 2 && (!isShort || takenSinceRead >= MIN_SLICE),
    read: async (concurrency) => {
      takenSinceRead = 0
      const limit = sliceFor(concurrency)
      const due = await readDue({ inHand: isFirstPass ? [] : [...inHand], after, limit })
      isShort = due.length < limit
      after = isShort ? null : (due.at(-1) ?? null)
      isFirstPass &&= !isShort
      const readAtMs = performance.now()
      for (const delivery of due) inHand.add(delivery.id)
      queue = [...queue.slice(taken), ...due.filter(({ moot }) => !moot).map((delivery) => ({ delivery, readAtMs }))]
      taken = 0
      return due.filter(({ moot }) => moot)
    },
    done: (ids) => {
      for (const id of ids) inHand.delete(id)
    },
    isEmpty: () => waiting() === 0 && isShort,
  }
}
