/**
 * What time it is, for forgetting: a clock that is ahead for a moment must not make a guard forget what it would never
 * be told again. A jump ahead is believed when it has lasted; one back at once, because it only makes a guard remember.
 */

/** Time servers and people have put a clock right by then. */
const BELIEVED_AFTER_MS = 600_000
/** Clocks are slewed by less. */
const SLACK_MS = 5_000

/** @returns milliseconds since 1970. */
export const createSteadyClock = (): (() => number) => {
  let baseMs = Date.now() - performance.now()
  let aheadSinceMs: number | null = null
  return () => {
    const wallMs = Date.now()
    const elapsedMs = performance.now()
    if (wallMs <= baseMs + elapsedMs + SLACK_MS) {
      aheadSinceMs = null
      return Math.min(wallMs, baseMs + elapsedMs)
    }
    aheadSinceMs ??= elapsedMs
    if (elapsedMs - aheadSinceMs >= BELIEVED_AFTER_MS) baseMs = wallMs - elapsedMs
    return baseMs + elapsedMs
  }
}
