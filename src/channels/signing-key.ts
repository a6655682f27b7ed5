/**
 * What a signing key is: made here, or read from what an operator imports (a private JWK or PKCS #8 PEM).
 *
 * Refused with `invalid_argument`: symmetric keys, public keys, RSA under 2048 bits, curves and algorithms that logout
 * tokens are not signed with here. A key's name (`kid`) is the one it came with, else its RFC 7638 thumbprint.
 */
import { createPrivateKey, createPublicKey, generateKeyPair } from 'node:crypto'
import type { JsonWebKey as NodeJwk, KeyObject } from 'node:crypto'
import { promisify } from 'node:util'
import { calculateJwkThumbprint } from 'jose'
import type { JWK } from 'jose'
import { CurfewError } from '../errors.ts'

export const signingAlgorithms = ['RS256', 'ES256'] as const
export type SigningAlgorithm = (typeof signingAlgorithms)[number]

export interface SigningKey {
  readonly kid: string
  readonly alg: SigningAlgorithm
  readonly privateKey: KeyObject
  readonly publicJwk: JWK
}

/** RFC 7518 §3.3. */
const MIN_RSA_BITS = 2_048
/** More only slows every delivery, and a key of absurd size would hold up a thread for seconds. */
const MAX_RSA_BITS = 8_192
const MAX_KID_LENGTH = 200

const generate = promisify(generateKeyPair)

export const isSigningAlgorithm = (alg: string): alg is SigningAlgorithm => signingAlgorithms.some((known) => known === alg)

/** Makes a key, off the event loop. */
export const makeSigningKey = async (alg: SigningAlgorithm): Promise<SigningKey> => {
  const { privateKey } = alg === 'RS256'
    ? await generate('rsa', { modulusLength: MIN_RSA_BITS })
    : await generate('ec', { namedCurve: 'P-256' })
  return signingKeyOf(privateKey, alg, null)
}

/**
 * Reads a private key from a JWK (as an object or as JSON text) or from PEM.
 *
 * @throws CurfewError invalid_argument, which says what is wrong and never shows the key.
 */
export const parseSigningKey = async (given: JWK | string): Promise<SigningKey> => {
  const jwk = typeof given === 'string' ? jwkOf(given) : given
  const privateKey = jwk === null ? fromPem(given as string) : fromJwk(jwk)
  const alg = algorithmOf(privateKey)
  if (jwk?.alg !== undefined && jwk.alg !== alg) throw refuse(`the key's "alg" is ${String(jwk.alg).slice(0, 20)}, and it signs ${alg} here`)
  if (jwk?.use !== undefined && jwk.use !== 'sig') throw refuse('the key is not for signing ("use" is not "sig")')
  const kid = jwk?.kid ?? null
  if (kid !== null && (typeof kid !== 'string' || kid === '' || kid.length > MAX_KID_LENGTH)) throw refuse(`"kid" must be a text of 1 to ${MAX_KID_LENGTH} characters`)
  return signingKeyOf(privateKey, alg, kid)
}

/** Reads back what `exportPrivateKey` wrote. */
export const importPrivateKey = (text: string): KeyObject => createPrivateKey({ key: JSON.parse(text) as NodeJwk, format: 'jwk' })

export const exportPrivateKey = (key: KeyObject): string => JSON.stringify(key.export({ format: 'jwk' }))

const refuse = (why: string, cause?: unknown): CurfewError => new CurfewError('invalid_argument', { says: `Invalid signing key: ${why}`, cause })

const signingKeyOf = async (privateKey: KeyObject, alg: SigningAlgorithm, kid: string | null): Promise<SigningKey> => {
  const jwk = createPublicKey(privateKey).export({ format: 'jwk' }) as JWK
  const named = kid ?? (await calculateJwkThumbprint(jwk))
  return { kid: named, alg, privateKey, publicJwk: { ...jwk, kid: named, alg, use: 'sig' } }
}

/** The JWK in a text that looks like JSON, or null where it does not. */
const jwkOf = (text: string): JWK | null => {
  if (!text.trimStart().startsWith('{')) return null
  try {
    return JSON.parse(text) as JWK
  } catch (cause) {
    throw refuse('not a JSON object', cause)
  }
}

const fromJwk = (jwk: JWK): KeyObject => {
  if (jwk.kty === 'oct') throw refuse('it is symmetric; relying parties could not verify without being able to sign')
  if (jwk.d === undefined) throw refuse('it is a public key')
  try {
    return createPrivateKey({ key: jwk as NodeJwk, format: 'jwk' })
  } catch (cause) {
    throw refuse('not a private key that can be read', cause)
  }
}

const fromPem = (text: string): KeyObject => {
  if (/-----BEGIN (RSA )?PUBLIC KEY-----|-----BEGIN CERTIFICATE-----/.test(text)) throw refuse('it is a public key')
  try {
    return createPrivateKey(text)
  } catch (cause) {
    throw refuse('neither a private JWK nor an unencrypted private key in PEM', cause)
  }
}

const algorithmOf = (key: KeyObject): SigningAlgorithm => {
  const { modulusLength = 0, namedCurve } = key.asymmetricKeyDetails ?? {}
  if (key.asymmetricKeyType === 'rsa') {
    if (modulusLength < MIN_RSA_BITS) throw refuse(`RSA needs at least ${MIN_RSA_BITS} bits`)
    if (modulusLength > MAX_RSA_BITS) throw refuse(`RSA of more than ${MAX_RSA_BITS} bits`)
    return 'RS256'
  }
  if (key.asymmetricKeyType === 'ec' && namedCurve === 'prime256v1') return 'ES256'
  throw refuse(`only RSA (RS256) and EC P-256 (ES256) keys sign here`)
}
