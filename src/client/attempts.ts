/**
 * Counts what a guard refused, by session and by rule, and hands it on in batches: the number that an incident
 * responder asks for first. Bounded: what there is no room for is counted under nothing. What could not be handed on
 * is tried again with the next batch.
 */
import type { AttemptOnTheWire } from './wire.ts'

/** So many different sessions and rules between two reports; a batch of them is about 100 KiB. */
const MAX_KINDS = 1_000
const REPORT_EVERY_MS = 10_000

export interface Attempts {
  countSession(issuer: string, sessionId: string): void
  countRule(issuer: string, ruleId: string): void
  /** Hands on what is left. Never rejects. */
  stop(): Promise<void>
}

export const createAttempts = (options: {
  report: (attempts: readonly AttemptOnTheWire[]) => Promise<void> | void
  onError: (error: unknown) => void
  everyMs?: number
}): Attempts => {
  const { report, onError, everyMs = REPORT_EVERY_MS } = options
  let counts = new Map<string, AttemptOnTheWire>()

  const add = (key: string, attempt: AttemptOnTheWire): void => {
    const before = counts.get(key)
    if (before === undefined && counts.size >= MAX_KINDS) return
    counts.set(key, { ...attempt, count: attempt.count + (before?.count ?? 0) })
  }

  const flush = async (): Promise<void> => {
    if (counts.size === 0) return
    const batch = counts
    counts = new Map()
    try {
      await report([...batch.values()])
    } catch (error) {
      for (const [key, attempt] of batch) add(key, attempt)
      onError(error)
    }
  }

  let flushing = Promise.resolve()
  const soon = (): Promise<void> => {
    flushing = flushing.then(flush)
    return flushing
  }
  // Not all guards at once.
  let timer = setTimeout(function again() {
    void soon()
    timer = setTimeout(again, everyMs * (0.5 + Math.random()))
    timer.unref()
  }, everyMs * (0.5 + Math.random()))
  timer.unref()

  return {
    countSession: (issuer, sessionId) => add(`s ${issuer} ${sessionId}`, { issuer, sessionId, count: 1 }),
    countRule: (issuer, ruleId) => add(`r ${issuer} ${ruleId}`, { issuer, ruleId, count: 1 }),
    stop: () => {
      clearTimeout(timer)
      return soon()
    },
  }
}
