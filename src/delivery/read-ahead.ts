/**
 * What a drain has read and not yet sent. It reads in the order in which deliveries became due, each slice after the one
 * before, so that what is done already is not walked over again; a slice that comes back short ends the pass, and
 * the next begins from the start, because what became due late may lie behind.
 *
 * Log-outs and what revocations ended stand in two lines. Log-outs go first, and while others wait it is looked for new ones
 * every `LOOK_EVERY_MS`: so a log-out waits behind a revocation's backlog, however large, for no more than that and what is
 * being sent (G8).
 */
import { performance } from 'node:perf_hooks'
import type { DrainCursor, DueDelivery } from '../store/drains.ts'

/** How one line is read on. */
export interface LineAsked {
  /** Without these. */
  readonly inHand: readonly string[]
  readonly after: DrainCursor | null
}

/** Reads up to `limit` due deliveries, log-outs first; of revocations no more than their own limit. */
export type ReadDue = (
  asked: LineAsked & { limit: number; ofRevocations: LineAsked & { limit: number } },
) => Promise<DueDelivery[]>

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
  /** Whatever waits is of revocations. */
  holdsNoLogOut(): boolean
  /** Nothing is waiting and the last slices came back short. */
  isEmpty(): boolean
}

/** Enough for each attempt in flight that reading never holds sending up. */
const AHEAD_PER_ATTEMPT = 16
const MIN_SLICE = 20
/** Bounds what one drain holds in memory, and what is told again after a crash. */
const MAX_SLICE = 500
/** A look costs a fraction of a millisecond; a person who logs out does not notice so much. */
const LOOK_EVERY_MS = 250

const createLine = () => {
  let queue: Ahead[] = []
  let taken = 0
  let after: DrainCursor | null = null
  let isShort = false
  /** From the second pass on, what is in hand may lie after the cursor. */
  let isFirstPass = true
  const inHand = new Set<string>()
  const waiting = (): number => queue.length - taken

  return {
    waiting,
    isShort: () => isShort,
    asked: (): LineAsked => ({ inHand: isFirstPass ? [] : [...inHand], after }),
    next: (): Ahead | undefined => {
      const ahead = queue[taken]
      if (ahead === undefined) return undefined
      taken += 1
      // A shift for each would move the whole queue each time.
      if (taken === queue.length) [queue, taken] = [[], 0]
      return ahead
    },
    /** @param due what was read. @param limit how much there was room for. */
    put: (due: readonly DueDelivery[], limit: number, readAtMs: number): void => {
      isShort = due.length < limit
      after = isShort ? null : (due.at(-1) ?? after)
      isFirstPass &&= !isShort
      for (const { id } of due) inHand.add(id)
      queue = [...queue.slice(taken), ...due.filter(({ moot }) => !moot).map((delivery) => ({ delivery, readAtMs }))]
      taken = 0
    },
    done: (id: string): void => void inHand.delete(id),
  }
}

export const createReadAhead = ({ readDue, now = () => performance.now() }: { readDue: ReadDue; now?: () => number }): ReadAhead => {
  const logOuts = createLine()
  const ofRevocations = createLine()
  let takenSinceRead = 0
  let readAtMs = Number.NEGATIVE_INFINITY

  const sliceFor = (concurrency: number): number => Math.min(MAX_SLICE, Math.max(MIN_SLICE, concurrency * AHEAD_PER_ATTEMPT))
  const waiting = (): number => logOuts.waiting() + ofRevocations.waiting()
  const isShort = (): boolean => logOuts.isShort() && ofRevocations.isShort()
  const hasRoom = (concurrency: number): boolean => waiting() < sliceFor(concurrency) / 2

  return {
    next: () => {
      const ahead = logOuts.next() ?? ofRevocations.next()
      if (ahead !== undefined) takenSinceRead += 1
      return ahead
    },
    waiting,
    // A slice that came back short is followed by another once much of it is taken: more may be due by then.
    wantsMore: (concurrency) =>
      (hasRoom(concurrency) && (!isShort() || takenSinceRead >= MIN_SLICE)) || (ofRevocations.waiting() > 0 && now() - readAtMs >= LOOK_EVERY_MS),
    read: async (concurrency) => {
      takenSinceRead = 0
      readAtMs = now()
      const limit = sliceFor(concurrency)
      const limitOfRevocations = hasRoom(concurrency) ? limit : 0
      const due = await readDue({ ...logOuts.asked(), limit, ofRevocations: { ...ofRevocations.asked(), limit: limitOfRevocations } })
      const atMs = performance.now()
      const first = due.filter((one) => !one.ofRevocation)
      logOuts.put(first, limit, atMs)
      const room = Math.min(limitOfRevocations, limit - first.length)
      if (room > 0) ofRevocations.put(due.filter((one) => one.ofRevocation), room, atMs)
      return due.filter(({ moot }) => moot)
    },
    done: (ids) => {
      for (const id of ids) {
        logOuts.done(id)
        ofRevocations.done(id)
      }
    },
    holdsNoLogOut: () => logOuts.waiting() === 0,
    isEmpty: () => waiting() === 0 && isShort(),
  }
}
