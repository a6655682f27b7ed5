/**
 * When a delivery is tried again: exponential with full jitter, or when the receiver asks for it; always within
 * [1 s, 1 h]. Full jitter keeps the retries of many deliveries, and of many processes, from arriving together.
 */
export interface RetryPolicy {
  readonly minMs: number
  readonly maxMs: number
}

const retryPolicy: RetryPolicy = { minMs: 1_000, maxMs: 3_600_000 }

/**
 * @param attempts made so far, this one included. @param retryAfterMs the receiver's wish, or null.
 * @param random in [0, 1).
 */
export const retryDelayMs = (
  { attempts, retryAfterMs, random }: { attempts: number; retryAfterMs: number | null; random: () => number },
  { minMs, maxMs }: RetryPolicy = retryPolicy,
): number => {
  const within = (ms: number): number => Math.min(maxMs, Math.max(minMs, ms))
  if (retryAfterMs !== null) return within(retryAfterMs)
  // 2 ** 31 is far beyond any cap, and keeps the product finite.
  return within(random() * within(minMs * 2 ** Math.min(attempts, 31)))
}
