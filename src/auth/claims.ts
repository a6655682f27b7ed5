/**
 * The claims that make a token an access token for us, checked alike for JWTs and for introspection's answers.
 */
import { tokenRefused } from './token-refused.ts'
import type { TrustedIssuer } from './trusted-issuer.ts'

/** Clocks that differ by more are broken. */
const TOLERANCE_SECONDS = 30

/** In an ID token, a logout token or a security event token, never in an access token (RFC 8725 §3.12). */
const foreignClaims = ['nonce', 'at_hash', 'events']

/** What is left to say of a token whose claims passed. */
export interface CheckedClaims {
  readonly subject: string
  readonly sid: string | null
  readonly bornMs: number
  /** Null only for introspection, which may leave it out. */
  readonly expiresAtMs: number | null
}

interface ClaimsOptions {
  readonly issuer: TrustedIssuer
  readonly nowMs: number
  /** `iss`, `aud` and `exp` must be there; where not, they must be right if they are there. */
  readonly required: boolean
  /** A token bound to a key passes: whoever asks about it checks the proof. By default none does. */
  readonly mayBeBound?: boolean
}

/** Ids of users and sessions are short; this bounds what is kept and queried. */
const MAX_ID_CHARACTERS = 512
const isPlainId = (value: unknown): value is string =>
  typeof value === 'string' && value !== '' && value.length <= MAX_ID_CHARACTERS && !/[\0-\x1f\x7f]/.test(value)

/** A NumericDate in milliseconds; null where absent. */
const dateOf = (claims: Record<string, unknown>, name: string): number | null => {
  const value = claims[name]
  if (value === undefined) return null
  if (typeof value !== 'number' || !Number.isFinite(value)) throw tokenRefused(`${name} is not a date`)
  return value * 1_000
}

const names = (audience: unknown, ours: ReadonlySet<string>): boolean =>
  typeof audience === 'string'
    ? ours.has(audience)
    : Array.isArray(audience) && audience.some((one) => typeof one === 'string' && ours.has(one))

/**
 * Checks issuer, audience, times and kind (RFC 9068 §4, RFC 8725 §3.8, §3.9, §3.12).
 *
 * A token bound to a key (`cnf`) is refused unless it may be: the proof that belongs to it is not checked here, and
 * without it the token must not pass as a bearer token (RFC 9449 §7.1, RFC 8705 §3). A date of birth in the future is
 * refused, because it would outlive every cutoff.
 *
 * @throws CurfewError token_invalid.
 */
export const checkClaims = (claims: Record<string, unknown>, options: ClaimsOptions): CheckedClaims => {
  const { issuer, nowMs, required, mayBeBound = false } = options
  const toleranceMs = TOLERANCE_SECONDS * 1_000
  if (required || claims['iss'] !== undefined) {
    if (claims['iss'] !== issuer.entry.issuer) throw tokenRefused('another issuer')
  }
  if (required || claims['aud'] !== undefined) {
    if (!names(claims['aud'], issuer.audiences)) throw tokenRefused('another audience')
  }
  const expiresAtMs = dateOf(claims, 'exp')
  if (expiresAtMs === null && required) throw tokenRefused('no exp')
  if (expiresAtMs !== null && nowMs >= expiresAtMs + toleranceMs) throw tokenRefused('expired')
  const notBeforeMs = dateOf(claims, 'nbf')
  if (notBeforeMs !== null && notBeforeMs > nowMs + toleranceMs) throw tokenRefused('not yet valid')
  const issuedAtMs = dateOf(claims, 'iat')
  const bornMs = dateOf(claims, 'auth_time') ?? issuedAtMs ?? 0
  if (Math.max(bornMs, issuedAtMs ?? 0) > nowMs + toleranceMs) throw tokenRefused('born in the future')
  if (foreignClaims.some((name) => Object.hasOwn(claims, name))) throw tokenRefused('not an access token')
  if (!mayBeBound && Object.hasOwn(claims, 'cnf')) throw tokenRefused('bound to a key')
  const { sub, sid } = claims
  if (!isPlainId(sub)) throw tokenRefused('no usable sub')
  if (sid !== undefined && sid !== null && !isPlainId(sid)) throw tokenRefused('sid is not usable')
  return { subject: sub, sid: sid ?? null, bornMs, expiresAtMs }
}
