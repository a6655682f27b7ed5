/**
 * From an `Authorization` header to a caller.
 *
 * The way of the flood is one look into a map: a verified JWT is remembered with the header that carried it,
 * until its `exp` and at most for 60 s. Everything else (a new token, an opaque one) takes a promise. Of
 * concurrent requests with the same new token one verifies.
 */
import { LRUCache } from 'lru-cache'
import { CurfewError } from '../errors.ts'
import type { IssuerEntry } from '../config.ts'
import type { Log } from '../telemetry.ts'
import type { Caller } from './caller.ts'
import { checkClaims } from './claims.ts'
import { MAX_TOKEN_CHARACTERS, looksLikeJwt, parseObject, readEnvelope } from './envelope.ts'
import type { Envelope } from './envelope.ts'
import { createFetchJson } from './fetch-json.ts'
import type { Fetch } from './fetch-json.ts'
import { readGrants } from './grants.ts'
import { createIntrospect } from './introspection.ts'
import { createIssuerKeys } from './issuer-keys.ts'
import type { KeyLookup } from './key-set.ts'
import { verifySignature } from './signature.ts'
import { tokenRefused } from './token-refused.ts'
import { createTrustedIssuer, tokenType } from './trusted-issuer.ts'
import type { TrustedIssuer } from './trusted-issuer.ts'

interface AuthenticateDeps {
  readonly issuers: readonly IssuerEntry[]
  readonly log: Pick<Log, 'info' | 'warn'>
  /** Milliseconds since 1970. */
  readonly now?: () => number
  /** Milliseconds that never jump; only differences count. */
  readonly elapsed?: () => number
  readonly fetch?: Fetch
}

type Authenticate = (authorization: string | undefined) => Caller | Promise<Caller>

/** How long a key's withdrawal may go unnoticed for a token already seen. */
const REMEMBER_MS = 60_000
const MAX_REMEMBERED = 20_000
/** Characters of all remembered headers together: 20,000 tokens of 1.6 kB. */
const MAX_REMEMBERED_CHARACTERS = 32_000_000

interface Verified {
  readonly caller: Caller
  /** By the clock that never jumps. */
  readonly untilMs: number
}

interface Remembered extends Verified {
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
  if (token.length > MAX_TOKEN_CHARACTERS) throw tokenRefused('longer than 8 kB')
  // Five parts are an encrypted token; nothing encrypted is accepted, nor asked about.
  if (token.split('.').length === 5) throw tokenRefused('encrypted')
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
  const { log, now = Date.now, elapsed = () => performance.now(), fetch = (url, init) => globalThis.fetch(url, init) } = deps
  const fetchJson = createFetchJson(fetch)
  const introspect = createIntrospect({ fetchJson, now, elapsed, log })
  const issuers = deps.issuers.map(createTrustedIssuer)
  const byIssuer = new Map(issuers.map((issuer) => [issuer.entry.issuer, issuer]))
  const keysOf = new Map<TrustedIssuer, KeyLookup>()
  for (const issuer of issuers) {
    if (issuer.hasKeys) keysOf.set(issuer, createIssuerKeys({ entry: issuer.entry, fetchJson, elapsed, log }))
  }
  const introspecting = issuers.filter(({ entry }) => entry.introspection !== undefined)
  const remembered = new LRUCache<string, Remembered>({
    max: MAX_REMEMBERED,
    maxSize: MAX_REMEMBERED_CHARACTERS,
    sizeCalculation: ({ authorization }) => authorization.length,
  })
  const verifying = new Map<string, Promise<Verified>>()

  const verify = async (
    envelope: Envelope,
    claims: Record<string, unknown>,
    { issuer, keys }: { issuer: TrustedIssuer; keys: KeyLookup },
  ): Promise<Verified> => {
    const { typ } = envelope.header
    if (typ === undefined || !issuer.tokenTypes.has(tokenType(typ))) throw tokenRefused('typ is not accepted')
    // Before the signature because it is cheaper; what it says is believed only after.
    const { subject, sid, bornMs, expiresAtMs } = checkClaims(claims, { issuer, nowMs: now(), required: true })
    await verifySignature(envelope, keys, issuer.algorithms)
    const caller: Caller = {
      actor: { issuer: issuer.entry.issuer, subject },
      sid,
      bornMs,
      sessionIssuers: issuer.sessionIssuers,
      grants: readGrants(claims, issuer),
    }
    return { caller, untilMs: elapsed() + Math.min(REMEMBER_MS, (expiresAtMs ?? 0) - now()) }
  }

  const verifyOnce = (authorization: string, begin: () => Promise<Verified>): Promise<Caller> => {
    let verified = verifying.get(authorization)
    if (verified === undefined) {
      verified = begin().finally(() => verifying.delete(authorization))
      verifying.set(authorization, verified)
      verified.then(
        (fresh) => remembered.set(placeOf(authorization), { ...fresh, authorization }),
        // The askers get the refusal. What is remembered at this place may be another's, so it stays.
        () => undefined,
      )
    }
    return verified.then(({ caller }) => caller)
  }

  const recognize = (authorization: string | undefined): Caller | Promise<Caller> => {
    const token = tokenOf(authorization)
    if (!looksLikeJwt(token)) {
      if (introspecting.length === 0) throw tokenRefused('not a JWT')
      return introspect(token, introspecting)
    }
    const envelope = readEnvelope(token)
    const claims = parseObject(envelope.payload)
    if (claims === null) throw tokenRefused('payload is not a JSON object')
    const issuer = typeof claims['iss'] === 'string' ? byIssuer.get(claims['iss']) : undefined
    if (issuer === undefined) throw tokenRefused('another issuer')
    const keys = keysOf.get(issuer)
    if (keys === undefined) return introspect(token, [issuer])
    return verifyOnce(authorization ?? '', () => verify(envelope, claims, { issuer, keys }))
  }

  return (authorization) => {
    const known = authorization === undefined ? undefined : remembered.get(placeOf(authorization))
    const holds = known !== undefined && known.authorization === authorization && elapsed() < known.untilMs
    return holds ? known.caller : recognize(authorization)
  }
}
