/**
 * From an `Authorization` header to a caller.
 *
 * The way of the flood is one look into a map: a verified JWT is remembered with the header that carried it,
 * until its `exp` and at most for 60 s. Everything else (a new token, an opaque one) takes a promise. Of
 * concurrent requests with the same new token one verifies.
 */
import { LRUCache } from 'lru-cache'
import { CurfewError } from '../errors.ts'
import type { Log } from '../telemetry.ts'
import type { Caller } from './caller.ts'
import { createIntrospect } from './introspection.ts'
import { createRecognize } from './recognize.ts'
import type { Trust } from './trust.ts'
import { callerOf } from './verified-token.ts'
import type { VerifiedToken } from './verified-token.ts'

interface AuthenticateDeps {
  readonly trust: Trust
  readonly log: Pick<Log, 'warn'>
  /** Milliseconds since 1970. */
  readonly now?: () => number
  /** Milliseconds that never jump; only differences count. */
  readonly elapsed?: () => number
}

type Authenticate = (authorization: string | undefined) => Caller | Promise<Caller>

/** How long a key's withdrawal may go unnoticed for a token already seen. */
const REMEMBER_MS = 60_000
const MAX_REMEMBERED = 20_000
/** Characters of all remembered headers together: 20,000 tokens of 1.6 kB. */
const MAX_REMEMBERED_CHARACTERS = 32_000_000

interface Known {
  readonly caller: Caller
  /** By the clock that never jumps. */
  readonly untilMs: number
}

interface Remembered extends Known {
  /** The whole header: what is remembered answers for this and no other. */
  readonly authorization: string
}

/**
 * Where a header is remembered: under its last characters, which are its signature's. Hashing all of a header of
 * 900 characters costs ten times as much as hashing these and comparing the rest.
 */
const placeOf = (authorization: string): string => authorization.slice(-43)

/** RFC 6750 §2.1; the scheme in any case (RFC 9110 §11.1). */
const tokenOf = (authorization: string | undefined): string => {
  if (authorization === undefined || authorization === '') throw new CurfewError('auth_header_missing')
  const token = /^bearer +([A-Za-z0-9\-._~+/]+=*) *$/i.exec(authorization)?.[1]
  if (token === undefined) throw new CurfewError('auth_header_malformed')
  return token
}

/**
 * Makes the one function that believes tokens (RFC 9068 §4, RFC 8725). It answers without a promise for a token
 * it remembers, and holds no timers, so it needs no stop.
 *
 * @throws CurfewError auth_header_missing, auth_header_malformed, token_invalid; issuer_unavailable where an
 * issuer's keys or introspection cannot be had at all, overloaded where too many introspections wait.
 */
export const createAuthenticate = (deps: AuthenticateDeps): Authenticate => {
  const { trust, log, now = Date.now, elapsed = () => performance.now() } = deps
  const recognize = createRecognize({ ...trust, now })
  const introspect = createIntrospect({ fetchJson: trust.fetchJson, keep: callerOf, now, elapsed, log })
  const remembered = new LRUCache<string, Remembered>({
    max: MAX_REMEMBERED,
    maxSize: MAX_REMEMBERED_CHARACTERS,
    sizeCalculation: ({ authorization }) => authorization.length,
  })
  const verifying = new Map<string, Promise<Known>>()

  const knownOf = (verified: VerifiedToken): Known => {
    const { expiresAtMs } = verified.checked
    return { caller: callerOf(verified), untilMs: elapsed() + Math.min(REMEMBER_MS, (expiresAtMs ?? 0) - now()) }
  }

  const verifyOnce = (authorization: string, verify: () => Promise<VerifiedToken>): Promise<Caller> => {
    let known = verifying.get(authorization)
    if (known === undefined) {
      known = verify().then(knownOf).finally(() => verifying.delete(authorization))
      verifying.set(authorization, known)
      known.then(
        (fresh) => remembered.set(placeOf(authorization), { ...fresh, authorization }),
        // The askers get the refusal. What is remembered at this place may be another's, so it stays.
        () => undefined,
      )
    }
    return known.then(({ caller }) => caller)
  }

  const learn = (authorization: string | undefined): Caller | Promise<Caller> => {
    const token = tokenOf(authorization)
    const recognized = recognize(token)
    return 'ask' in recognized ? introspect(token, recognized.ask) : verifyOnce(authorization ?? '', recognized.verify)
  }

  return (authorization) => {
    const known = authorization === undefined ? undefined : remembered.get(placeOf(authorization))
    const holds = known !== undefined && known.authorization === authorization && elapsed() < known.untilMs
    return holds ? known.caller : learn(authorization)
  }
}
