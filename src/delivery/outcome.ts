/**
 * What came of an attempt, as data: the channel's verdict on the answer becomes what is written to the delivery's row,
 * and what the receiver's breaker learns. Every outcome word that operators can meet is listed here.
 */
import type { Answer, Silence, Verdict } from '../channels/channel.ts'
import type { DueDelivery, RecordedOutcome } from '../store/drains.ts'
import { retryDelayMs } from './retry.ts'
import type { RetryPolicy } from './retry.ts'

/** `last_outcome`, in words. */
export type OutcomeWord = 'delivered' | 'redirected' | 'rejected' | 'throttled' | 'server_error' | 'receiver_gone' | 'not_composed' | 'moot' | Silence

/** What the request's making or its answer amounts to. */
export type Attempt = { readonly answer: Answer; readonly verdict: Verdict } | { readonly notComposed: string }

/** What the receiver's health learns from an attempt. */
export type Sign = 'answered' | 'failed'

export interface Outcome {
  readonly word: OutcomeWord
  readonly sign: Sign
  readonly delivered: boolean
  readonly gone: boolean
  readonly retryAfterMs: number | null
  readonly recorded: RecordedOutcome
}

const ANSWER_LENGTH = 1_024

/** What an attempt came to, for whoever looks at it: the word, the status if one came, the receiver's words cleaned. */
export const seenOf = (attempt: Attempt): { outcome: OutcomeWord; status: number | null; answer: string | null } => ({
  outcome: wordOf(attempt),
  status: 'answer' in attempt && 'status' in attempt.answer ? attempt.answer.status : null,
  answer: cleanText('notComposed' in attempt ? attempt.notComposed : wordsOf(attempt.answer)),
})

/** Reads an attempt into its outcome. @param random in [0, 1), for the jitter. */
export const outcomeOf = (
  { delivery, attempt, random, policy }: { delivery: DueDelivery; attempt: Attempt; random: () => number; policy?: RetryPolicy },
): Outcome => {
  const verdict: Verdict = 'notComposed' in attempt ? { verdict: 'retry', retryAfterMs: null } : attempt.verdict
  const retryAfterMs = verdict.verdict === 'retry' ? verdict.retryAfterMs : null
  const seen = seenOf(attempt)
  return {
    word: seen.outcome,
    sign: verdict.verdict === 'retry' ? 'failed' : 'answered',
    delivered: verdict.verdict === 'delivered',
    gone: verdict.verdict === 'receiver_gone',
    retryAfterMs,
    recorded: {
      id: delivery.id,
      attempts: delivery.attempts,
      tried: true,
      state: stateOf(verdict),
      afterMs: verdict.verdict === 'retry' ? retryDelayMs({ attempts: delivery.attempts + 1, retryAfterMs, random }, policy) : 0,
      ...seen,
    },
  }
}

/** A delivery of which nothing is left to end. */
export const mootOutcome = (delivery: DueDelivery): RecordedOutcome => ({
  id: delivery.id, attempts: delivery.attempts, tried: false, state: 'moot', afterMs: 0, outcome: 'moot', status: null, answer: null,
})

/** A receiver's words, fit to be kept and shown: no control characters, at most 1,024 characters, null where empty. */
export const cleanText = (text: string): string | null => {
  const clean = text
    .slice(0, ANSWER_LENGTH * 4)
    .replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ')
    .trim()
    .slice(0, ANSWER_LENGTH)
    // Half a surrogate pair is no character, and Postgres refuses it.
    .replace(/[\uD800-\uDBFF]$/, '')
  return clean === '' ? null : clean
}

const stateOf = ({ verdict }: Verdict): RecordedOutcome['state'] => {
  switch (verdict) {
    case 'delivered': return 'acknowledged'
    case 'retry': return 'pending'
    case 'gave_up':
    case 'receiver_gone': return 'failed'
    default: return verdict satisfies never
  }
}

const wordOf = (attempt: Attempt): OutcomeWord => {
  if ('notComposed' in attempt) return 'not_composed'
  const { verdict } = attempt.verdict
  if (verdict === 'delivered') return 'delivered'
  if (verdict === 'receiver_gone') return 'receiver_gone'
  if ('silence' in attempt.answer) return attempt.answer.silence
  const { status } = attempt.answer
  if (status === 429) return 'throttled'
  if (status >= 500) return 'server_error'
  if (status >= 300 && status < 400) return 'redirected'
  return 'rejected'
}

const wordsOf = (answer: Answer): string => ('silence' in answer ? answer.detail : answer.body)
