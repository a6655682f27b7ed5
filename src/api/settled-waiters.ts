/**
 * `Prefer: wait=N`: answers that are held until their session's commit is routed and no delivery of it is pending.
 *
 * One poller serves all of them with one query per round, however many wait; rounds never overlap. A failed read is
 * tried again in the next round; who waits longer than it wanted gets the last that was read.
 */
import type { Settled } from '../store/deliveries.ts'

export interface SettledWaitersDeps {
  /** What is known of these sessions, in one query. A session that is left out is not routed yet. */
  readonly readSettled: (sessionIds: readonly string[]) => Promise<ReadonlyMap<string, Settled>>
  readonly now?: () => number
}

/** Each held answer is a socket and a place in every query. One more is answered at once instead. */
export const MAX_WAITERS = 256

/** A relying party answers in 10 to 100 ms; twenty queries a second at most are no load. */
const ROUND_MS = 50

/** How long a read may be late before whoever's time is over leaves without it. */
const GRACE_MS = 500

interface Waiter {
  readonly sessionId: string
  readonly untilMs: number
  readonly leave: (settled: Settled | null) => void
  last: Settled | null
  seen: boolean
}

export interface Waiting {
  /** The last that was read: settled, or not yet where the time was over. Null where nothing could be read. */
  readonly settled: Promise<Settled | null>
  /** Gives up, for example because the caller has gone. Repeat-safe. */
  readonly leave: () => void
}

export interface SettledWaiters {
  /** Null where the preference is not applied: too many wait already, or the server stops. */
  readonly wait: (sessionId: string, waitMs: number) => Waiting | null
  readonly waiting: () => number
  /** Lets everybody go with what they have. */
  readonly stop: () => void
}

export const createSettledWaiters = ({ readSettled, now = Date.now }: SettledWaitersDeps): SettledWaiters => {
  const waiters = new Set<Waiter>()
  let timer: NodeJS.Timeout | null = null
  let reading = false
  let stopped = false

  const dismiss = (): void => {
    const atMs = now()
    for (const waiter of waiters) {
      const isOver = atMs >= waiter.untilMs && (waiter.seen || atMs >= waiter.untilMs + GRACE_MS)
      if (isOver || isSettled(waiter.last)) waiter.leave(waiter.last)
    }
  }

  const read = async (): Promise<void> => {
    const asked = [...waiters]
    reading = true
    try {
      const answers = await readSettled([...new Set(asked.map(({ sessionId }) => sessionId))])
      for (const waiter of asked) waiter.last = answers.get(waiter.sessionId) ?? waiter.last
    } catch {
      // Postgres away: the commit stands, only the counts are missing. The next round asks again.
    } finally {
      for (const waiter of asked) waiter.seen = true
      reading = false
      dismiss()
    }
  }

  const round = (): void => {
    dismiss()
    if (waiters.size > 0 && !reading) void read()
  }

  const wait: SettledWaiters['wait'] = (sessionId, waitMs) => {
    if (stopped || waiters.size >= MAX_WAITERS) return null
    const { promise, resolve } = deferred<Settled | null>()
    const waiter: Waiter = {
      sessionId,
      untilMs: now() + waitMs,
      last: null,
      seen: false,
      leave: (settled) => {
        waiters.delete(waiter)
        if (waiters.size === 0 && timer !== null) {
          clearInterval(timer)
          timer = null
        }
        resolve(settled)
      },
    }
    waiters.add(waiter)
    timer ??= setInterval(round, ROUND_MS)
    round()
    return { settled: promise, leave: () => waiter.leave(waiter.last) }
  }

  return {
    wait,
    waiting: () => waiters.size,
    stop: () => {
      stopped = true
      for (const waiter of waiters) waiter.leave(waiter.last)
    },
  }
}

const isSettled = (settled: Settled | null): boolean => settled !== null && settled.routed && settled.counts.pending === 0

const deferred = <T>() => {
  let resolve: (value: T) => void = () => {}
  const promise = new Promise<T>((settle) => {
    resolve = settle
  })
  return { promise, resolve }
}
