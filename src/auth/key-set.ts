/**
 * A JWK Set as an issuer publishes it, judged as a whole: one that holds a secret, repeats a `kid` or is out of
 * all proportion is refused, because who sends that is either broken or not the issuer.
 *
 * Keys for encryption and of unknown kinds are passed over (RFC 7517 §5). What a key says of its own use is kept
 * to: `use`, `key_ops` and `alg` by jose when it picks a key for a token's header.
 */
import { createLocalJWKSet } from 'jose'
import type { CryptoKey, FlattenedJWSInput, JWK, JWSHeaderParameters } from 'jose'
import { isWeakRsa } from './weak-rsa.ts'

/** Picks the key for a token's header; rejects where none or several fit. */
export type KeyLookup = (header: JWSHeaderParameters, token: FlattenedJWSInput) => Promise<CryptoKey>

/** Issuers publish two to five: the current, the last, the next, for each algorithm. */
const MAX_KEYS = 20

/** The public members of each kind that can sign (RFC 7518 §6, RFC 8037 §2). */
const publicMembers: ReadonlyMap<unknown, readonly string[]> = new Map([
  ['RSA', ['n', 'e']],
  ['EC', ['crv', 'x', 'y']],
  ['OKP', ['crv', 'x']],
])
const privateMembers = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k', 'priv']

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const signs = (jwk: Record<string, unknown>): boolean =>
  (jwk['use'] === undefined || jwk['use'] === 'sig') &&
  (jwk['key_ops'] === undefined || (Array.isArray(jwk['key_ops']) && jwk['key_ops'].includes('verify')))

/** The key with only what verifying needs, or null where it is none whose signature proves anything. */
const publicKeyOf = (jwk: Record<string, unknown>): JWK | null => {
  const members = publicMembers.get(jwk['kty'])
  if (members === undefined || !signs(jwk)) return null
  if (members.some((name) => typeof jwk[name] !== 'string')) return null
  if (jwk['kty'] === 'RSA' && isWeakRsa(String(jwk['n']), String(jwk['e']))) return null
  const kept = ['kty', 'kid', 'alg', 'use', 'key_ops', ...members].filter((name) => jwk[name] !== undefined)
  return Object.fromEntries(kept.map((name) => [name, jwk[name]])) as JWK
}

/**
 * Reads a fetched JWK Set.
 *
 * @throws Error that says why the whole set is refused.
 */
export const readKeySet = (document: unknown): KeyLookup => {
  const listed = isObject(document) ? document['keys'] : undefined
  if (!Array.isArray(listed)) throw new Error('not a JWK Set')
  if (listed.length > MAX_KEYS) throw new Error(`more than ${MAX_KEYS} keys`)
  const kids = new Set<string>()
  const keys: JWK[] = []
  for (const jwk of listed as unknown[]) {
    if (!isObject(jwk)) throw new Error('a key is not an object')
    if (jwk['kty'] === 'oct') throw new Error('a symmetric key')
    if (privateMembers.some((name) => name in jwk)) throw new Error('a private key')
    const { kid } = jwk
    if (kid !== undefined && typeof kid !== 'string') throw new Error('a kid is not a string')
    if (kid !== undefined && kids.has(kid)) throw new Error('a kid twice')
    if (kid !== undefined) kids.add(kid)
    const key = publicKeyOf(jwk)
    if (key !== null) keys.push(key)
  }
  if (keys.length === 0) throw new Error('no key that can verify')
  return createLocalJWKSet({ keys })
}
