/**
 * A small OpenID provider for trying Curfew out: discovery, JWKS, the authorization code flow with PKCE, ID tokens with
 * `sid`, RFC 9068 access tokens. Whoever asks is let in as a demo user of their choice: there are no passwords.
 *
 * Like a real provider beside Curfew it registers each session before it tells the relying party of it, so there is
 * never a signed-in user whose session Curfew does not know.
 */
import { createHash, randomBytes, randomInt, randomUUID } from 'node:crypto'
import Fastify from 'fastify'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { SignJWT, importJWK } from 'jose'
import type { JWK, JWTPayload } from 'jose'

export interface DemoUser {
  readonly id: string
  readonly name: string
}

export interface DemoLogin {
  readonly sessionId: string
  readonly user: DemoUser
  readonly clientId: string
}

interface Grant extends DemoLogin {
  readonly redirectUri: string
  readonly codeChallenge: string
  readonly nonce: string
  readonly authTime: number
  readonly expiresAtMs: number
}

const CODE_MS = 60_000
/** Codes waiting to be exchanged; the oldest goes first. A demo has one. */
const MAX_CODES = 1_000
const TOKEN_SECONDS = 3_600

export interface DemoIssuerOptions {
  readonly host: string
  readonly port: number
  readonly url: string
  /** The `aud` of access tokens: Curfew. */
  readonly audience: string
  readonly key: JWK
  readonly users: readonly DemoUser[]
  readonly client: { readonly id: string; readonly secret: string; readonly redirectUri: string }
  /** Registers the session at Curfew; the login waits for it. */
  readonly register: (login: DemoLogin) => Promise<void>
}

export type DemoIssuer = Awaited<ReturnType<typeof createDemoIssuer>>

export const createDemoIssuer = async (options: DemoIssuerOptions) => {
  const { url, users, client } = options
  const privateKey = await importJWK(options.key, 'RS256')
  const { kty, n, e, kid, alg, use } = options.key
  const grants = new Map<string, Grant>()
  const app = Fastify({ logger: false })
  app.addContentTypeParser('application/x-www-form-urlencoded', { parseAs: 'string' }, (_request, body, done) => {
    done(null, Object.fromEntries(new URLSearchParams(String(body))))
  })

  const sign = (typ: string, claims: JWTPayload): Promise<string> =>
    new SignJWT(claims)
      .setProtectedHeader({ alg: 'RS256', typ, ...(kid === undefined ? {} : { kid }) })
      .setIssuer(url)
      .setIssuedAt()
      .setExpirationTime(`${TOKEN_SECONDS}s`)
      .sign(privateKey)

  /** An access token for Curfew's API (RFC 9068), good for one hour. */
  const accessToken = (claims: JWTPayload & { sub: string; client_id: string }): Promise<string> =>
    sign('at+jwt', { aud: options.audience, jti: randomUUID(), ...claims })

  app.get('/.well-known/openid-configuration', () => ({
    issuer: url,
    authorization_endpoint: `${url}/authorize`,
    token_endpoint: `${url}/token`,
    jwks_uri: `${url}/jwks`,
    response_types_supported: ['code'],
    subject_types_supported: ['public'],
    id_token_signing_alg_values_supported: ['RS256'],
    code_challenge_methods_supported: ['S256'],
    backchannel_logout_supported: true,
    backchannel_logout_session_supported: true,
  }))
  app.get('/jwks', () => ({ keys: [{ kty, n, e, kid, alg, use }] }))

  app.get('/authorize', async (request: FastifyRequest<{ Querystring: Record<string, string> }>, reply) => {
    const { client_id, redirect_uri, response_type, code_challenge, code_challenge_method, nonce, state, login_hint } = request.query
    // Never redirect to an address that was not registered.
    if (client_id !== client.id || redirect_uri !== client.redirectUri) return refuse(reply, 'unknown client or redirect_uri')
    if (response_type !== 'code' || code_challenge_method !== 'S256' || !code_challenge || !nonce || !state) {
      return refuse(reply, 'a code flow with PKCE (S256), nonce and state is needed')
    }
    const user = users.find(({ id }) => id === login_hint)
    if (user === undefined) return reply.type('text/html').send(choosePage(users, new URL(request.url, url)))
    const login: DemoLogin = { sessionId: newSessionId(), user, clientId: client.id }
    await options.register(login)
    const code = randomBytes(32).toString('base64url')
    const authTime = Math.floor(Date.now() / 1_000)
    grants.set(code, {
      ...login, redirectUri: redirect_uri, codeChallenge: code_challenge, nonce, authTime, expiresAtMs: Date.now() + CODE_MS,
    })
    const [oldest] = grants.keys()
    if (grants.size > MAX_CODES && oldest !== undefined) grants.delete(oldest)
    const back = new URL(redirect_uri)
    back.search = new URLSearchParams({ code, state, iss: url }).toString()
    return reply.redirect(back.href)
  })

  app.post('/token', async (request: FastifyRequest<{ Body: Record<string, string> | null }>, reply) => {
    const { grant_type, code = '', redirect_uri, client_id, client_secret, code_verifier = '' } = request.body ?? {}
    if (client_id !== client.id || client_secret !== client.secret) return refuse(reply, 'invalid_client', 401)
    const grant = grants.get(code)
    // A code is good once, whatever comes of it.
    grants.delete(code)
    const challenge = createHash('sha256').update(code_verifier).digest('base64url')
    if (grant_type !== 'authorization_code' || grant === undefined || grant.expiresAtMs < Date.now()) return refuse(reply, 'invalid_grant')
    if (grant.redirectUri !== redirect_uri || grant.codeChallenge !== challenge) return refuse(reply, 'invalid_grant')
    const { user, sessionId: sid, nonce, authTime: auth_time } = grant
    return {
      token_type: 'Bearer',
      expires_in: TOKEN_SECONDS,
      access_token: await accessToken({ sub: user.id, client_id: client.id, sid, auth_time }),
      id_token: await sign('JWT', { sub: user.id, aud: client.id, name: user.name, sid, nonce, auth_time }),
    }
  })

  return {
    url,
    accessToken,
    start: async (): Promise<void> => void (await app.listen({ host: options.host, port: options.port })),
    stop: async (): Promise<void> => {
      app.server.closeAllConnections()
      await app.close()
    },
  }
}

/** A number of 18 digits, as ZITADEL's ids are. */
const newSessionId = (): string => [1, 2].map(() => randomInt(10 ** 8, 10 ** 9)).join('')

const refuse = (reply: FastifyReply, error: string, status = 400) => reply.code(status).header('cache-control', 'no-store').send({ error })

/** Names are ours, and a query carries neither quotes nor angle brackets once `URL` has parsed it. */
const choosePage = (users: readonly DemoUser[], asked: URL): string => {
  const links = users.map(({ id, name }) => {
    asked.searchParams.set('login_hint', id)
    return `<li><a href="${asked.href}">${name}</a></li>`
  })
  return `<!doctype html><meta charset="utf-8"><title>Demo issuer</title><h1>Sign in as</h1><ul>${links.join('')}</ul>`
}
