/**
 * What a token is, before anything of it is believed: a JWT of an issuer whose keys we have, to be verified here; or one
 * that only issuers can judge, to be asked about.
 */
import { checkClaims } from './claims.ts'
import { MAX_TOKEN_CHARACTERS, looksLikeJwt, parseObject, readEnvelope } from './envelope.ts'
import type { KeyLookup } from './key-set.ts'
import { verifySignature } from './signature.ts'
import { tokenRefused } from './token-refused.ts'
import { tokenType } from './trusted-issuer.ts'
import type { TrustedIssuer } from './trusted-issuer.ts'
import type { VerifiedToken } from './verified-token.ts'

interface RecognizeDeps {
  readonly issuers: readonly TrustedIssuer[]
  /** By `iss`; an issuer without keys is asked. */
  readonly keys: ReadonlyMap<string, KeyLookup>
  /** Milliseconds since 1970. */
  readonly now: () => number
  /** See `checkClaims`. */
  readonly mayBeBound?: boolean
}

/** Either how to verify it, or the issuers to ask. */
type Recognized = { readonly verify: () => Promise<VerifiedToken> } | { readonly ask: readonly TrustedIssuer[] }

/**
 * Makes the function that looks at tokens (RFC 9068 §4, RFC 8725).
 *
 * @throws (also what `verify` rejects with) CurfewError token_invalid; issuer_unavailable where an issuer's keys cannot
 * be had at all.
 */
export const createRecognize = (deps: RecognizeDeps): ((token: string) => Recognized) => {
  const { issuers, keys, now, mayBeBound = false } = deps
  const byIssuer = new Map(issuers.map((issuer) => [issuer.entry.issuer, issuer]))
  const introspecting = issuers.filter(({ entry }) => entry.introspection !== undefined)
  return (token) => {
    if (token.length > MAX_TOKEN_CHARACTERS) throw tokenRefused('longer than 8 kB')
    // Five parts are an encrypted token; nothing encrypted is accepted, nor asked about.
    if (token.split('.').length === 5) throw tokenRefused('encrypted')
    if (!looksLikeJwt(token)) {
      if (introspecting.length === 0) throw tokenRefused('not a JWT')
      return { ask: introspecting }
    }
    const envelope = readEnvelope(token)
    const claims = parseObject(envelope.payload)
    if (claims === null) throw tokenRefused('payload is not a JSON object')
    const issuer = typeof claims['iss'] === 'string' ? byIssuer.get(claims['iss']) : undefined
    if (issuer === undefined) throw tokenRefused('another issuer')
    const lookup = keys.get(issuer.entry.issuer)
    if (lookup === undefined) return { ask: [issuer] }
    const verify = async (): Promise<VerifiedToken> => {
      const { typ } = envelope.header
      if (typ === undefined || !issuer.tokenTypes.has(tokenType(typ))) throw tokenRefused('typ is not accepted')
      // Before the signature because it is cheaper; what it says is believed only after.
      const checked = checkClaims(claims, { issuer, nowMs: now(), required: true, mayBeBound })
      await verifySignature(envelope, lookup, issuer.algorithms)
      return { issuer, claims, checked }
    }
    return { verify }
  }
}
