/**
 * Opaque tokens, by asking the issuers that can be asked (RFC 7662), in the order of `ISSUERS`.
 *
 * Answers are remembered by the token's hash: yes for at most 10 s and never past `exp`, no for at most 1 s. Of
 * concurrent requests with the same token one asks. Bounded in concurrency, time and size.
 * Failure: an issuer that does not answer is passed over; if no other knows the token, `issuer_unavailable`.
 */
import { createHash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { CurfewError } from '../errors.ts'
import type { Log } from '../telemetry.ts'
import { checkClaims } from './claims.ts'
import type { FetchJson } from './fetch-json.ts'
import { createSlots } from './slots.ts'
import { tokenRefused } from './token-refused.ts'
import type { TrustedIssuer } from './trusted-issuer.ts'
import type { VerifiedToken } from './verified-token.ts'

interface IntrospectDeps<Known> {
  readonly fetchJson: FetchJson
  /** What is kept of a token whose claims passed. */
  readonly keep: (verified: VerifiedToken) => Known
  /** See `checkClaims`. */
  readonly mayBeBound?: boolean
  /** Milliseconds since 1970, for what tokens say. */
  readonly now: () => number
  /** Milliseconds that never jump, for how long we remember. */
  readonly elapsed: () => number
  readonly log: Pick<Log, 'warn'>
}

type Introspect<Known> = (token: string, issuers: readonly TrustedIssuer[]) => Known | Promise<Known>

const GOOD_MS = 10_000
const BAD_MS = 1_000
/** Good and bad together; a flood of made-up tokens pushes out its own. */
const MAX_REMEMBERED = 10_000
/** Enough for 32 / 20 ms = 1,600 new tokens a second, and no flood at the issuer. */
const AT_ONCE = 32
const MAX_WAITING = 1_000

interface Remembered<Known> {
  /** Null: no issuer knows the token. */
  readonly known: Known | null
  /** By the clock that never jumps. */
  readonly untilMs: number
}

const unknownToken = (): CurfewError => tokenRefused('no issuer knows it')

/** client_secret_basic, RFC 6749 §2.3.1: both parts form-encoded before they are joined. */
const basicCredentials = (clientId: string, clientSecret: string): string => {
  const encode = (text: string) => new URLSearchParams({ _: text }).toString().slice(2)
  return `Basic ${Buffer.from(`${encode(clientId)}:${encode(clientSecret)}`).toString('base64')}`
}

/** A refresh token is active too, and some servers say so here; only access tokens may pass. */
const isAccessToken = (kind: unknown, mayBeBound: boolean): boolean =>
  kind === undefined || (typeof kind === 'string' && (mayBeBound ? /^(bearer|access_token|dpop)$/i : /^(bearer|access_token)$/i).test(kind))

/** The token as the issuer describes it; null where it is not active. */
const readAnswer = (answer: unknown, options: { issuer: TrustedIssuer; nowMs: number; mayBeBound: boolean }): VerifiedToken | null => {
  if (typeof answer !== 'object' || answer === null) throw new Error('introspection answered without an object')
  const claims = answer as Record<string, unknown>
  if (claims['active'] !== true) return null
  if (!isAccessToken(claims['token_type'], options.mayBeBound)) throw tokenRefused('not an access token')
  return { issuer: options.issuer, claims, checked: checkClaims(claims, { ...options, required: false }) }
}

/**
 * Asks who holds a token. Answers without a promise while the answer is remembered.
 *
 * @throws CurfewError token_invalid, issuer_unavailable, overloaded.
 */
export const createIntrospect = <Known>(deps: IntrospectDeps<Known>): Introspect<Known> => {
  const { fetchJson, keep, mayBeBound = false, now, elapsed, log } = deps
  const remembered = new LRUCache<string, Remembered<Known>>({ max: MAX_REMEMBERED })
  const asking = new Map<string, Promise<Remembered<Known>>>()
  const withSlot = createSlots({ atOnce: AT_ONCE, maxWaiting: MAX_WAITING })

  /** Null: this issuer does not vouch for the token. */
  const askOne = async (token: string, issuer: TrustedIssuer): Promise<Remembered<Known> | null> => {
    const { introspection } = issuer.entry
    if (introspection === undefined) return null
    const answer = await withSlot(() =>
      fetchJson(introspection.endpoint, {
        method: 'POST',
        headers: {
          authorization: basicCredentials(introspection.clientId, introspection.clientSecret),
          'content-type': 'application/x-www-form-urlencoded',
          accept: 'application/json',
        },
        body: new URLSearchParams({ token, token_type_hint: 'access_token' }).toString(),
      }),
    )
    try {
      const nowMs = now()
      const verified = readAnswer(answer, { issuer, nowMs, mayBeBound })
      if (verified === null) return null
      const forMs = Math.min(GOOD_MS, (verified.checked.expiresAtMs ?? Infinity) - nowMs)
      return { known: keep(verified), untilMs: elapsed() + forMs }
    } catch (error) {
      if (error instanceof CurfewError) return null
      throw error
    }
  }

  const askInOrder = async (token: string, issuers: readonly TrustedIssuer[]): Promise<Remembered<Known>> => {
    let away = false
    for (const issuer of issuers) {
      try {
        const answer = await askOne(token, issuer)
        if (answer !== null) return answer
      } catch (error) {
        if (error instanceof CurfewError) throw error
        away = true
        const fields = { event: 'auth.introspection.unanswered', issuer: issuer.entry.issuer, err: error }
        log.warn(fields, 'An issuer did not answer an introspection')
      }
    }
    if (away) throw new CurfewError('issuer_unavailable')
    return { known: null, untilMs: elapsed() + BAD_MS }
  }

  const knownOf = ({ known }: Remembered<Known>): Known => {
    if (known === null) throw unknownToken()
    return known
  }

  return (token, issuers) => {
    const key = createHash('sha256').update(token).digest('base64url')
    const known = remembered.get(key)
    if (known !== undefined && elapsed() < known.untilMs) return knownOf(known)
    let answer = asking.get(key)
    if (answer === undefined) {
      answer = askInOrder(token, issuers).finally(() => asking.delete(key))
      asking.set(key, answer)
      answer.then((fresh) => remembered.set(key, fresh), () => remembered.delete(key))
    }
    return answer.then(knownOf)
  }
}
