/**
 * A synthetic logout: one attempt at a receiver through the real path (compose, sign, door, judge), of a session that
 * cannot exist, so that an operator sees what the receiver answers before a real session ends. Nothing is recorded.
 *
 * Sends at most one attempt a second to a receiver, and few at once in one process: it is a question of people, not a way
 * to make us send.
 */
import { randomBytes } from 'node:crypto'
import { performance } from 'node:perf_hooks'
import { calculateJwkThumbprint } from 'jose'
import type { JWK } from 'jose'
import { LRUCache } from 'lru-cache'
import type { ChannelDelivery, ChannelReceiver } from '../channels/channel.ts'
import { CurfewError } from '../errors.ts'
import type { MakeAttempt } from './attempt.ts'
import { seenOf } from './outcome.ts'
import type { OutcomeWord } from './outcome.ts'
import type { PublishedKeys, ReadPublishedKeys } from './published-keys.ts'

export interface VerifiedReceiver extends ChannelReceiver {
  readonly type: string
  readonly issuer: string | null
  readonly resourceOwner: string | null
  readonly enabled: boolean
  readonly brokenUntil: Date | null
}

export interface Verification {
  readonly outcome: OutcomeWord
  readonly status: number | null
  /** The receiver's own words, cleaned and cut. */
  readonly answer: string | null
  readonly durationMs: number
  /** What stands in the way, in sentences; empty where nothing does. */
  readonly problems: readonly string[]
}

/** Slots beside those of the deliveries; each is held for one time limit at most. */
const MAX_AT_ONCE = 8
const PAUSE_MS = 1_000
/** Receivers whose last verification is remembered. */
const MAX_REMEMBERED = 10_000

const outcomeSays: Partial<Record<OutcomeWord, string>> = {
  not_composed: 'The message could not be made; the server’s log says why.',
  redirected: 'It answered with a redirect, and none is followed: register the URL to which it leads.',
  receiver_gone: 'It says that it is gone for good (410): with a real event it would be switched off.',
  address_refused: 'Its name or URL leads to an address that may not be told; see ALLOW_PRIVATE_RECEIVERS.',
  name_not_resolved: 'Its host name could not be looked up.',
  tls_refused: 'Its TLS certificate was refused: expired, of another name, or of an authority that is not trusted here.',
  connection_refused: 'Nothing listens at its address and port.',
  connection_lost: 'It cut the connection without an answer.',
  timeout: 'It did not answer in time.',
  not_http: 'What it answered is not HTTP.',
  unreachable: 'It could not be reached.',
  throttled: 'It asks for fewer requests (429).',
  server_error: 'It answered that it failed.',
  rejected: 'It refused the message; its answer may say why.',
}

/** @returns verifies one receiver. @throws CurfewError too_many_requests where it is asked too often. */
export const createVerify = (deps: {
  makeAttempt: MakeAttempt
  /** The key that signs now in the issuer's name. */
  currentKey: (issuer: string, alg: string) => Promise<{ kid: string; publicJwk: JWK }>
  readPublishedKeys: ReadPublishedKeys
  /** Milliseconds since 1970. */
  now: () => number
}): ((receiver: VerifiedReceiver) => Promise<Verification>) => {
  const { makeAttempt, currentKey, readPublishedKeys, now } = deps
  const lately = new LRUCache<string, true>({ max: MAX_REMEMBERED, ttl: PAUSE_MS })
  let running = 0

  const keyProblem = async ({ type, issuer, alg }: VerifiedReceiver): Promise<string | null> => {
    if (type !== 'backchannel_logout' || issuer === null) return null
    const [current, published] = await Promise.all([currentKey(issuer, alg), readPublishedKeys(issuer)])
    return missingKey(current, published)
  }

  return async (receiver) => {
    if (running >= MAX_AT_ONCE || lately.has(receiver.id)) throw new CurfewError('too_many_requests')
    lately.set(receiver.id, true)
    running += 1
    try {
      const startedMs = performance.now()
      const attempted = makeAttempt(receiver.type, syntheticDelivery(receiver, now()), receiver)
        .then((attempt) => ({ attempt, durationMs: Math.round(performance.now() - startedMs) }))
      const [{ attempt, durationMs }, missing] = await Promise.all([attempted, keyProblem(receiver)])
      const seen = seenOf(attempt)
      const problems = [outcomeSays[seen.outcome], missing, ...stateProblems(receiver, now())]
      return { ...seen, durationMs, problems: problems.filter((problem) => typeof problem === 'string') }
    } finally {
      running -= 1
    }
  }
}

/** Of a session, a sid and a user that nobody has: 128 random bits each. */
const syntheticDelivery = ({ clientId, issuer, resourceOwner }: VerifiedReceiver, nowMs: number): ChannelDelivery => {
  const nobody = `curfew-verify-${randomBytes(16).toString('hex')}`
  return {
    id: '0', sessionId: nobody, clientId: clientId ?? '', sid: nobody, sub: nobody, issuer: issuer ?? '',
    termination: {
      resourceOwner: resourceOwner ?? '', mode: 'logout', reason: 'Curfew verifies this receiver; no session has ended',
      sequence: '2', terminatedAtMs: nowMs,
    },
    completion: null, ofUser: false,
  }
}

const missingKey = async ({ kid, publicJwk }: { kid: string; publicJwk: JWK }, published: PublishedKeys): Promise<string | null> => {
  if ('unreadable' in published) {
    return `The issuer’s JWKS could not be read (${published.unreadable}), so it is not known whether relying parties find the key ${kid} there.`
  }
  const named = published.keys.filter((key) => key.kid === kid)
  if (named.length === 0) {
    return `The issuer’s JWKS lacks the key ${kid} that signs: relying parties will refuse logout tokens. Publish it there from ` +
      'GET /v1/issuers/{issuer}/jwks.json, or import the issuer’s own key (curfew keys import).'
  }
  const ours = await calculateJwkThumbprint(publicJwk)
  const theirs = await Promise.all(named.map((key) => calculateJwkThumbprint(key).catch(() => null)))
  return theirs.includes(ours) ? null : `The issuer’s JWKS has another key under the name ${kid}: relying parties will refuse logout tokens.`
}

const stateProblems = ({ enabled, brokenUntil }: VerifiedReceiver, nowMs: number): string[] => [
  ...(enabled ? [] : ['The receiver is switched off: until it is enabled it is told nothing.']),
  ...(brokenUntil !== null && brokenUntil.getTime() > nowMs ? [`It failed too often and is left alone until ${brokenUntil.toISOString()}.`] : []),
]
