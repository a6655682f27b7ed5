/**
 * How fast revocations may go beside what else there is to do.
 *
 * Alone, three chunks run at once, each of two thousand sessions at most. As soon as log-outs are committed anywhere, and
 * for a while after, one runs at a time, of a size that takes about 10 ms, and then three times as long nothing.
 *
 * G8: so a log-out finds at most one chunk of some 10 ms in each worker process at work, a quarter of the time; it waits
 * for none of them, because none holds a lock that it asks for, but for its own session's (and then that is ended by
 * the chunk). The first log-outs after a quiet time meet at most three large chunks.
 */
export interface Pace {
  /** Waits for a turn, or for the signal, and runs the work in it. */
  turn<T>(work: (beside: boolean) => Promise<T>, signal?: AbortSignal): Promise<T>
  /** How many may be at work at once. */
  atOnce(): number
  /** Runs a log-out of this process: what revocations give way to. */
  during<T>(work: () => Promise<T>): Promise<T>
}

const ALONE_AT_ONCE = 3
/** Log-outs come in bursts; a rate of one a second is enough to stay slow. */
const QUIET_AFTER_MS = 1_500
const REST = 3
const LOOK_EVERY_MS = 50

/** @param readInteractiveAge how many milliseconds ago a commit was made that belongs to no revocation, by any process; null: long ago. */
export const createPace = (deps: { readInteractiveAge: () => Promise<number | null>; elapsed?: () => number }): Pace => {
  const { readInteractiveAge, elapsed = () => performance.now() } = deps
  let running = 0
  let inHand = 0
  let seenMs = Number.NEGATIVE_INFINITY
  let lookedMs = Number.NEGATIVE_INFINITY
  let restUntilMs = 0
  let looking: Promise<void> | null = null
  const waiting: (() => void)[] = []

  const isBeside = (): boolean => inHand > 0 || elapsed() - seenMs < QUIET_AFTER_MS
  const atOnce = (): number => (isBeside() ? 1 : ALONE_AT_ONCE)

  const look = async (): Promise<void> => {
    if (elapsed() - lookedMs < LOOK_EVERY_MS) return
    looking ??= readInteractiveAge()
      .then((ageMs) => {
        lookedMs = elapsed()
        // Older than nothing: where the database's clock went back.
        if (ageMs !== null) seenMs = Math.max(seenMs, lookedMs - Math.max(0, ageMs))
      })
      .finally(() => {
        looking = null
      })
    await looking
  }

  const pause = (ms: number, signal?: AbortSignal) =>
    new Promise<void>((resolve) => {
      const timer = setTimeout(done, ms)
      function done() {
        clearTimeout(timer)
        signal?.removeEventListener('abort', done)
        resolve()
      }
      signal?.addEventListener('abort', done)
    })

  return {
    atOnce,
    turn: async (work, signal) => {
      await look()
      while (signal?.aborted !== true) {
        const restMs = isBeside() ? restUntilMs - elapsed() : 0
        if (restMs > 0) await pause(restMs, signal)
        else if (running >= atOnce()) await new Promise<void>((resolve) => waiting.push(resolve))
        else break
      }
      running += 1
      const beside = isBeside()
      const sinceMs = elapsed()
      try {
        return await work(beside)
      } finally {
        running -= 1
        if (beside) restUntilMs = elapsed() + REST * (elapsed() - sinceMs)
        // What they wait for may have changed altogether.
        for (const wake of waiting.splice(0)) wake()
      }
    },
    during: async (work) => {
      inHand += 1
      seenMs = elapsed()
      try {
        return await work()
      } finally {
        inHand -= 1
        seenMs = elapsed()
      }
    },
  }
}
