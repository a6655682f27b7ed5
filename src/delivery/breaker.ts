/**
 * The breaker of one receiver: opens on consecutive failures, for a time that grows with each failed probe. While it is
 * open nothing is sent, so no delivery uses up attempts; when its time is over, one probe decides.
 *
 * Its state is the receiver's row (`consecutive_failures`, `broken_until`); this is the drain's copy.
 */
export interface BreakerPolicy {
  readonly failures: number
  readonly minMs: number
  readonly maxMs: number
}

/** Five in a row is no accident; five minutes is the longest that a receiver which recovered is left waiting. */
const breakerPolicy: BreakerPolicy = { failures: 5, minMs: 1_000, maxMs: 300_000 }

export interface Breaker {
  /** The receiver answered, so it is there. Closes the breaker. */
  answered(): void
  /** @param retryAfterMs how long the receiver asks to be left alone, or null. */
  failed(retryAfterMs: number | null): void
  /** True until the first answer after the breaker was open: one attempt at a time. */
  probing(): boolean
  isOpen(): boolean
  consecutiveFailures(): number
  /** How long it is to stay open from when it opened, or null: closed. */
  openForMs(): number | null
}

export const createBreaker = (deps: {
  consecutiveFailures: number
  random: () => number
  policy?: BreakerPolicy
}): Breaker => {
  const { random, policy = breakerPolicy } = deps
  let failures = deps.consecutiveFailures
  // A row with this many failures was open before; also where the process that probed has died.
  let probing = failures >= policy.failures
  let openForMs: number | null = null

  return {
    answered: () => {
      failures = 0
      probing = false
      openForMs = null
    },
    failed: (retryAfterMs) => {
      // What was in flight when it opened tells nothing new.
      if (openForMs !== null) return
      failures += 1
      if (failures < policy.failures) return
      const full = Math.min(policy.maxMs, policy.minMs * 2 ** Math.min(30, Math.max(0, failures - policy.failures)))
      const jittered = full / 2 + random() * (full / 2)
      openForMs = Math.max(jittered, Math.min(policy.maxMs, retryAfterMs ?? 0))
    },
    probing: () => probing,
    isOpen: () => openForMs !== null,
    consecutiveFailures: () => failures,
    openForMs: () => openForMs,
  }
}
