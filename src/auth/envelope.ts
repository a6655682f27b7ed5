/**
 * A JWT taken apart before anything in it is believed: size, shape, strict base64url and UTF-8, header rules.
 * Everything here is cheap and synchronous, so that what is malformed never costs a signature check.
 */
import type { CompactJWSHeaderParameters } from 'jose'
import { tokenRefused } from './token-refused.ts'

/** Far above any access token, and below what HTTP servers take as a header. */
export const MAX_TOKEN_CHARACTERS = 8_192
/** Thumbprints have 43; some issuers use URLs. */
const MAX_KID_CHARACTERS = 256

export interface Envelope {
  readonly token: string
  readonly header: CompactJWSHeaderParameters & { readonly alg: string }
  readonly payload: Uint8Array
}

const utf8 = new TextDecoder('utf-8', { fatal: true })

/** A JSON object, or null for anything else. */
export const parseObject = (bytes: Uint8Array): Record<string, unknown> | null => {
  try {
    const value: unknown = JSON.parse(utf8.decode(bytes))
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : null
  } catch {
    return null
  }
}

/** The bytes of one part, perhaps none; null where it is not the one base64url form of them (RFC 7515 §2). */
const decodePart = (part: string): Uint8Array | null => {
  const bytes = Buffer.from(part, 'base64url')
  return bytes.toString('base64url') === part ? bytes : null
}

/** True for three parts of which the first reads as a JOSE header; anything else can only be an opaque token. */
export const looksLikeJwt = (token: string): boolean => {
  const parts = token.split('.')
  if (parts.length !== 3) return false
  return parseObject(Buffer.from(parts[0] ?? '', 'base64url'))?.['alg'] !== undefined
}

const isSaneKid = (kid: unknown): boolean =>
  kid === undefined || (typeof kid === 'string' && kid.length <= MAX_KID_CHARACTERS && /^[\x20-\x7e]+$/.test(kid))

/**
 * Takes a signed token apart and checks its form (RFC 8725 §3.3, §3.10; RFC 7515 §5.2). Keys that the header
 * names or carries (`jku`, `jwk`, `x5u`, `x5c`) are never looked at.
 *
 * @throws CurfewError token_invalid.
 */
export const readEnvelope = (token: string): Envelope => {
  if (token.length > MAX_TOKEN_CHARACTERS) throw tokenRefused('longer than 8 kB')
  const parts = token.split('.')
  if (parts.length !== 3) throw tokenRefused('not three parts')
  const [head, body, signature] = parts.map(decodePart)
  if (head == null || body == null || signature == null) throw tokenRefused('not base64url')
  const header = parseObject(head)
  if (header === null) throw tokenRefused('header is not a JSON object')
  const { alg, kid, typ } = header
  if (typeof alg !== 'string') throw tokenRefused('no alg')
  if (!isSaneKid(kid)) throw tokenRefused('kid is too long or not plain')
  if (typ !== undefined && typeof typ !== 'string') throw tokenRefused('typ is not a string')
  if ('crit' in header || 'b64' in header) throw tokenRefused('critical extensions are not understood')
  return { token, header: { ...header, alg }, payload: body }
}
