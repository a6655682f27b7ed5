/**
 * Validation of a logout token as a relying party must do it (OpenID Connect Back-Channel Logout 1.0 §2.6), against
 * the issuer's own JWKS.
 */
import { createRemoteJWKSet, jwtVerify } from 'jose'

const LOGOUT_EVENT = 'http://schemas.openid.net/event/backchannel-logout'

/** Token ids remembered against replay; a token lives two minutes, and the oldest are forgotten first. */
const MAX_REMEMBERED = 10_000

export interface LogoutToken {
  readonly sid: string | null
  readonly sub: string | null
}

/** A token that must be refused with 400. */
export class LogoutTokenRefused extends Error {}

/** @returns a function that validates one token, and throws `LogoutTokenRefused` where it is not to be believed. */
export const createLogoutTokenVerifier = (options: { issuer: string; clientId: string; jwksUri: string }) => {
  const keys = createRemoteJWKSet(new URL(options.jwksUri))
  const seen = new Set<string>()

  return async (token: string): Promise<LogoutToken> => {
    const payload = await jwtVerify(token, keys, {
      issuer: options.issuer,
      audience: options.clientId,
      algorithms: ['RS256'],
      requiredClaims: ['iat', 'exp', 'jti', 'events'],
      clockTolerance: 5,
    }).then(
      (verified) => verified.payload,
      (cause: unknown) => {
        throw new LogoutTokenRefused('The token does not verify', { cause })
      },
    )
    const { sid, sub, events, jti = '' } = payload
    const event = typeof events === 'object' && events !== null ? (events as Record<string, unknown>)[LOGOUT_EVENT] : undefined
    if (typeof event !== 'object' || event === null) throw new LogoutTokenRefused('It is no logout event')
    if ('nonce' in payload) throw new LogoutTokenRefused('A logout token has no nonce')
    if (typeof sid !== 'string' && typeof sub !== 'string') throw new LogoutTokenRefused('It names neither sid nor sub')
    if (seen.has(jti)) throw new LogoutTokenRefused('It was used before')
    seen.add(jti)
    const [oldest] = seen
    if (seen.size > MAX_REMEMBERED && oldest !== undefined) seen.delete(oldest)
    return { sid: typeof sid === 'string' ? sid : null, sub: typeof sub === 'string' ? sub : null }
  }
}
