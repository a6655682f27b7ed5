/**
 * What came on the stream, for all who follow it over HTTP: one poller reads it from Postgres once, however many follow,
 * and only while someone does. Each follower gets every entry after its own place, in order, and each second how fresh
 * that is.
 *
 * A follower that does not take what it is given loses its place in the queue and comes back with its cursor. Positions
 * of another epoch (a failover, a restore) or too far behind are refused: then a snapshot is needed.
 */
import { weightOf } from '../channels/stream-pieces.ts'
import type { EndedOnTheWire, EntryOnTheWire } from '../client/wire.ts'
import { CurfewError } from '../errors.ts'
import type { VersionedRule } from '../store/cutoff-rules.ts'
import { ENTRIES_KEPT, POSITIONED_AT_ONCE, ruleOnTheWire } from '../store/stream.ts'
import type { Head, PositionedEntry } from '../store/stream.ts'
import type { Log } from '../telemetry.ts'
import type { StreamCursor } from './stream-cursor.ts'

export interface StreamReads {
  readonly readHead: () => Promise<Head>
  readonly givePositions: () => Promise<{ readonly count: number; readonly last: number }>
  readonly readEntries: (asked: { after: number; to: number }) => Promise<PositionedEntry[] | null>
  readonly readRulesAfter: (asked: { after: bigint; limit: number }) => Promise<VersionedRule[]>
  readonly log: Log
}

/** One query of a fraction of a millisecond: what is committed is on its way about this much later. */
const POLL_EVERY_MS = 15
/** While something comes. What comes together is read together, so this costs less than it seems. */
const POLL_AGAIN_MS = 3
/** Postgres is away: asking faster helps nobody. */
const RETRY_AFTER_MS = 500
const FRESH_EVERY_MS = 1_000
/** Each follower is a connection and a place in every broadcast. */
export const MAX_FOLLOWERS = 1_000
/** What waits for one follower, in sessions and steps: some ten megabytes. */
const MAX_QUEUED = 200_000
const RULES_AT_ONCE = 500

/** `entry`: learnt, and the cursor after it. `fresh`: as in the wire words. `reset`: the cursor is worth nothing any more. */
export type Step =
  | { readonly kind: 'entry'; readonly cursor: StreamCursor; readonly entry: EntryOnTheWire }
  | { readonly kind: 'fresh'; readonly atMs: number; readonly lagMs: number }
  | { readonly kind: 'reset' }

export interface StreamFeed {
  /**
   * Everything after a place, until `signal` says so (the caller must, when it has enough), the server stops, or the
   * follower is too slow.
   *
   * @throws CurfewError stream_position_gone, overloaded; what the reads reject with.
   */
  follow(from: StreamCursor, signal: AbortSignal): Promise<AsyncGenerator<Step, void, void>>
  /** True where nothing is known that came after it. */
  reached(cursor: StreamCursor): boolean
  followers(): number
  stop(): void
}

interface Follower {
  readonly queue: Step[]
  /** What is in it, as MAX_QUEUED counts. */
  queued: number
  readonly sinceMs: number
  /** It has been told how fresh it is, as of after it came. */
  told: boolean
  ended: boolean
  wake: () => void
}

const loadOf = (step: Step): number => 1 + (step.kind === 'entry' ? weightOf(step.entry) : 0)

export const createStreamFeed = (reads: StreamReads): StreamFeed => {
  const followers = new Set<Follower>()
  /** Up to here everything has been given to the followers. Null: nobody follows, so nobody reads. */
  let at: StreamCursor | null = null
  let freshMs = -Infinity
  let isPolling = false
  let stopped = false

  const give = (follower: Follower, step: Step): void => {
    if (follower.queued > MAX_QUEUED) follower.ended = true
    // Nothing comes after what was left out.
    if (!follower.ended) {
      follower.queue.push(step)
      follower.queued += loadOf(step)
    }
    follower.wake()
  }
  const broadcast = (step: Step): void => {
    for (const follower of followers) give(follower, step)
  }
  /** Another epoch: whoever followed the one before needs a snapshot, and nothing of this one is for them. */
  const beginAnew = (head: Head, spared: Follower | null): void => {
    for (const follower of followers) {
      if (follower === spared) continue
      give(follower, { kind: 'reset' })
      follower.ended = true
    }
    at = head
  }

  /** @returns the place reached, or null: something after `from` is gone, so a snapshot is needed. */
  async function* between(from: StreamCursor, to: StreamCursor): AsyncGenerator<Step & { kind: 'entry' }, StreamCursor | null> {
    let cursor = from
    for (;;) {
      const rules = cursor.rule < to.rule ? await reads.readRulesAfter({ after: BigInt(cursor.rule), limit: RULES_AT_ONCE }) : []
      const last = rules.at(-1)
      if (last === undefined) break
      cursor = { ...cursor, rule: Number(last.version) }
      yield { kind: 'entry', cursor, entry: { rules: rules.map(ruleOnTheWire) } }
    }
    // What was committed after the head was read may be in it as well: then it has been told already.
    cursor = { ...cursor, rule: Math.max(cursor.rule, to.rule) }
    for (;;) {
      const entries = cursor.position < to.position ? await reads.readEntries({ after: cursor.position, to: to.position }) : []
      if (entries === null) return null
      if (entries.length === 0) return { ...cursor, position: Math.max(cursor.position, to.position) }
      for (const { position, ended } of entries) {
        cursor = { ...cursor, position }
        yield { kind: 'entry', cursor, entry: { ended: ended as readonly EndedOnTheWire[] } }
      }
    }
  }

  /** True where there was something: then there may be more by now. */
  const poll = async (): Promise<boolean> => {
    const sinceMs = performance.now()
    let head = await reads.readHead()
    let isAll = !head.pending
    while (!isAll) {
      const { count, last } = await reads.givePositions()
      head = { ...head, position: Math.max(head.position, last) }
      if (count === 0) break
      isAll = count < POSITIONED_AT_ONCE
    }
    if (at === null) at = head
    if (head.epoch !== at.epoch) beginAnew(head, null)
    const steps = between(at, head)
    let found = false
    for (;;) {
      const { done, value } = await steps.next()
      if (done) {
        if (value === null) beginAnew(head, null)
        else at = { ...value, epoch: head.epoch }
        break
      }
      // Given before it counts as given, so that whoever comes meanwhile begins before it.
      broadcast(value)
      at = value.cursor
      found = true
    }
    if (isAll) freshMs = sinceMs
    return found || !isAll
  }

  /** Ends by itself when nobody follows any more; begun and ended without a pause, so that whoever comes then begins it anew. */
  const run = async (): Promise<void> => {
    if (isPolling) return
    isPolling = true
    let saidMs = performance.now()
    while (followers.size > 0 && !stopped) {
      const waitMs = await poll().then((found) => (found ? POLL_AGAIN_MS : POLL_EVERY_MS), (error: unknown) => {
        reads.log.warn({ event: 'stream.unread', err: error }, 'the stream cannot be read from Postgres at present')
        return RETRY_AFTER_MS
      })
      const isTime = performance.now() - saidMs >= FRESH_EVERY_MS
      if (isTime) saidMs = performance.now()
      for (const follower of followers) sayFresh(follower, isTime)
      await new Promise((resolve) => setTimeout(resolve, waitMs))
    }
    isPolling = false
    at = null
    freshMs = -Infinity
  }

  const freshNow = (): Step => ({ kind: 'fresh', atMs: performance.now(), lagMs: performance.now() - freshMs })

  /** Behind whatever was given before, so that it says nothing too early. To who is new as soon as it is true of it. */
  const sayFresh = (follower: Follower, isTime: boolean): void => {
    if (follower.told ? !isTime : freshMs < follower.sinceMs) return
    follower.told = true
    give(follower, freshNow())
  }

  const check = (from: StreamCursor, head: Head): void => {
    const isHere = from.epoch === head.epoch && from.position <= head.position && from.rule <= head.rule
    if (!isHere || from.position < head.position - ENTRIES_KEPT) throw new CurfewError('stream_position_gone')
  }

  async function* take(from: StreamCursor, base: StreamCursor, follower: Follower): AsyncGenerator<Step, void, void> {
    let known = from
    const missed = between(from, base)
    for (;;) {
      const { done, value } = await missed.next()
      if (done) {
        if (value !== null) break
        // It was so slow that what it had not read is pruned by now.
        yield { kind: 'reset' }
        return
      }
      known = value.cursor
      yield value
    }
    for (;;) {
      const step = follower.queue.shift()
      if (step === undefined) {
        if (follower.ended) return
        await new Promise<void>((resolve) => {
          follower.wake = resolve
        })
        continue
      }
      follower.queued -= loadOf(step)
      if (step.kind === 'entry') {
        if (step.cursor.position <= known.position && step.cursor.rule <= known.rule) continue
        known = step.cursor
      }
      yield step
    }
  }

  return {
    follow: async (from, signal) => {
      if (stopped || followers.size >= MAX_FOLLOWERS) throw new CurfewError('overloaded')
      const follower: Follower = { queue: [], queued: 0, sinceMs: performance.now(), told: false, ended: false, wake: () => {} }
      const leave = (): void => {
        followers.delete(follower)
        follower.ended = true
        follower.wake()
      }
      // From before the head is read, so that nothing falls between the two.
      followers.add(follower)
      signal.addEventListener('abort', leave, { once: true })
      try {
        const head = await reads.readHead()
        check(from, head)
        if (at === null) at = head
        // Its own cursor is of this epoch; those of the others may be of the one before.
        if (at.epoch !== head.epoch) beginAnew(head, follower)
        if (signal.aborted) leave()
        const base = at
        void run()
        return take(from, base, follower)
      } catch (error) {
        leave()
        throw error
      }
    },
    reached: ({ position, rule }) => at === null || (position >= at.position && rule >= at.rule),
    followers: () => followers.size,
    stop: () => {
      stopped = true
      for (const follower of followers) {
        follower.ended = true
        follower.wake()
      }
    },
  }
}
