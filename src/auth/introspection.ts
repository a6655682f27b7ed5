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
import type { Caller } from './caller.ts'
import { checkClaims } from './claims.ts'
import type { FetchJson } from './fetch-json.ts'
import { readGrants } from './grants.ts'
import { createSlots } from './slots.ts'
import { tokenRefused } from './token-refused.ts'
import type { TrustedIssuer } from './trusted-issuer.ts'

interface IntrospectDeps {
  readonly fetchJson: FetchJson
  /** Milliseconds since 1970, for what tokens say. */
  readonly now: () => number
  /** Milliseconds that never jump, for how long we remember. */
  readonly elapsed: () => number
  readonly log: Pick<Log, 'warn'>
}

type Introspect = (token: string, issuers: readonly TrustedIssuer[]) => Caller | Promise<Caller>

const GOOD_MS = 10_000
const BAD_MS = 1_000
/** Good and bad together; a flood of made-up tokens pushes out its own. */
const MAX_REMEMBERED = 10_000
/** Enough for 32 / 20 ms = 1,600 new tokens a second, and no flood at the issuer. */
const AT_ONCE = 32
const MAX_WAITING = 1_000

interface Remembered {
  /** Null: no issuer knows the token. */
  readonly caller: Caller | null
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
const isAccessToken = (kind: unknown): boolean =>
  kind === undefined || (typeof kind === 'string' && /^(bearer|access_token)$/i.test(kind))

/** The caller and for how many milliseconds it may be remembered; null where the token is not active. */
const readAnswer = (answer: unknown, issuer: TrustedIssuer, nowMs: number): { caller: Caller; forMs: number } | null => {
  if (typeof answer !== 'object' || answer === null) throw new Error('introspection answered without an object')
  const claims = answer as Record<string, unknown>
  if (claims['active'] !== true) return null
  if (!isAccessToken(claims['token_type'])) throw tokenRefused('not an access token')
  const { subject, sid, bornMs, expiresAtMs } = checkClaims(claims, { issuer, nowMs, required: false })
  const caller: Caller = {
    actor: { issuer: issuer.entry.issuer, subject },
    sid,
    bornMs,
    sessionIssuers: issuer.sessionIssuers,
    grants: readGrants(claims, issuer),
  }
  return { caller, forMs: Math.min(GOOD_MS, (expiresAtMs ?? Infinity) - nowMs) }
}

/**
 * Asks who holds a token. Answers without a promise while the answer is remembered.
 *
 * @throws CurfewError token_invalid, issuer_unavailable, overloaded.
 */
export const createIntrospect = ({ fetchJson, now, elapsed, log }: IntrospectDeps): Introspect => {
  const remembered = new LRUCache<string, Remembered>({ max: MAX_REMEMBERED })
  const asking = new Map<string, Promise<Remembered>>()
  const withSlot = createSlots({ atOnce: AT_ONCE, maxWaiting: MAX_WAITING })

  /** Null: this issuer does not vouch for the token. */
  const askOne = async (token: string, issuer: TrustedIssuer): Promise<Remembered | null> => {
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
      const read = readAnswer(answer, issuer, now())
      return read === null ? null : { caller: read.caller, untilMs: elapsed() + read.forMs }
    } catch (error) {
      if (error instanceof CurfewError) return null
      throw error
    }
  }

  const askInOrder = async (token: string, issuers: readonly TrustedIssuer[]): Promise<Remembered> => {
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
    return { caller: null, untilMs: elapsed() + BAD_MS }
  }

  const callerOf = ({ caller }: Remembered): Caller => {
    if (caller === null) throw unknownToken()
    return caller
  }

  return (token, issuers) => {
    const key = createHash('sha256').update(token).digest('base64url')
    const known = remembered.get(key)
    if (known !== undefined && elapsed() < known.untilMs) return callerOf(known)
    let answer = asking.get(key)
    if (answer === undefined) {
      answer = askInOrder(token, issuers).finally(() => asking.delete(key))
      asking.set(key, answer)
      answer.then((fresh) => remembered.set(key, fresh), () => remembered.delete(key))
    }
    return answer.then(callerOf)
  }
}
