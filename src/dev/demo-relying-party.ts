/**
 * A small web application that lets users in through the demo issuer, and out when a logout token says so. It keeps
 * its own sessions by cookie, knows nothing of Curfew and talks to the issuer alone, as real relying parties do.
 */
import { createHash, randomBytes } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import Fastify from 'fastify'
import type { FastifyRequest } from 'fastify'
import { createRemoteJWKSet, jwtVerify } from 'jose'
import { demoPage } from './demo-page.ts'
import { LogoutTokenRefused, createLogoutTokenVerifier } from './logout-token.ts'
import type { LogoutToken } from './logout-token.ts'

interface Login {
  readonly sub: string
  readonly sid: string
  readonly name: string
  endedAt: string | null
}

interface Attempt {
  readonly verifier: string
  readonly nonce: string
}

/** Logins shown and attempts under way; the oldest go first. */
const MAX_LOGINS = 100
const MAX_ATTEMPTS = 100
const COOKIE = 'demo_shop'

export interface DemoRelyingPartyOptions {
  readonly host: string
  readonly port: number
  readonly url: string
  readonly issuer: string
  readonly client: { readonly id: string; readonly secret: string }
  /** Called when a logout token has signed a user out. */
  readonly onSignedOut: (login: { name: string; sid: string }) => void
}

export const createDemoRelyingParty = (options: DemoRelyingPartyOptions) => {
  const { url, issuer, client } = options
  const redirectUri = `${url}/callback`
  const issuerKeys = createRemoteJWKSet(new URL(`${issuer}/jwks`))
  const verifyLogoutToken = createLogoutTokenVerifier({ issuer, clientId: client.id, jwksUri: `${issuer}/jwks` })
  const logins = new Map<string, Login>()
  const attempts = new Map<string, Attempt>()
  const watchers = new Map<ServerResponse, string | undefined>()
  const app = Fastify({ logger: false })
  app.addContentTypeParser('application/x-www-form-urlencoded', { parseAs: 'string' }, (_request, body, done) => {
    done(null, Object.fromEntries(new URLSearchParams(String(body))))
  })

  const view = (cookie: string | undefined) =>
    [...logins].map(([id, { name, sid, endedAt }]) => ({ name, sid, endedAt, mine: id === cookie })).reverse()
  const show = (watcher: ServerResponse, cookie: string | undefined) => watcher.write(`data: ${JSON.stringify(view(cookie))}\n\n`)
  const showAll = () => watchers.forEach((cookie, watcher) => show(watcher, cookie))

  app.get('/', (_request, reply) => reply.type('text/html').send(demoPage))
  app.get('/events', (request, reply) => {
    reply.hijack()
    const { raw } = reply
    raw.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
    const cookie = cookieOf(request)
    watchers.set(raw, cookie)
    raw.on('close', () => watchers.delete(raw))
    show(raw, cookie)
  })

  app.get('/login', (request: FastifyRequest<{ Querystring: { as?: string } }>, reply) => {
    const [state, nonce, verifier] = [randomName(), randomName(), randomName()]
    attempts.set(state, { nonce, verifier })
    dropOldest(attempts, MAX_ATTEMPTS)
    const query = new URLSearchParams({
      client_id: client.id, redirect_uri: redirectUri, response_type: 'code', scope: 'openid', state, nonce,
      code_challenge: createHash('sha256').update(verifier).digest('base64url'), code_challenge_method: 'S256',
    })
    if (request.query.as !== undefined) query.set('login_hint', request.query.as)
    return reply.redirect(`${issuer}/authorize?${query.toString()}`)
  })

  app.get('/callback', async (request: FastifyRequest<{ Querystring: { code?: string; state?: string } }>, reply) => {
    const { code = '', state = '' } = request.query
    const attempt = attempts.get(state)
    attempts.delete(state)
    if (attempt === undefined) return reply.code(400).send('This sign-in was not begun here. Go back and try again.')
    const login = await exchange(code, attempt)
    const id = randomName()
    logins.set(id, login)
    dropOldest(logins, MAX_LOGINS)
    showAll()
    return reply.header('set-cookie', `${COOKIE}=${id}; HttpOnly; SameSite=Lax; Path=/`).redirect('/')
  })

  const exchange = async (code: string, { verifier, nonce }: Attempt): Promise<Login> => {
    const body = new URLSearchParams({
      grant_type: 'authorization_code', code, redirect_uri: redirectUri, code_verifier: verifier,
      client_id: client.id, client_secret: client.secret,
    })
    const answer = await fetch(`${issuer}/token`, { method: 'POST', body, redirect: 'error' })
    if (!answer.ok) throw new Error(`The issuer refused the code with ${answer.status}`)
    const { id_token } = (await answer.json()) as { id_token: string }
    const { payload } = await jwtVerify(id_token, issuerKeys, { issuer, audience: client.id, algorithms: ['RS256'] })
    if (payload['nonce'] !== nonce) throw new Error('The ID token belongs to another sign-in')
    return { sub: String(payload.sub), sid: String(payload['sid']), name: String(payload['name']), endedAt: null }
  }

  app.post('/backchannel-logout', async (request: FastifyRequest<{ Body: { logout_token?: string } | null }>, reply) => {
    reply.header('cache-control', 'no-store')
    try {
      signOut(await verifyLogoutToken(request.body?.logout_token ?? ''))
    } catch (error) {
      if (!(error instanceof LogoutTokenRefused)) throw error
      return reply.code(400).send({ error: 'invalid_request', error_description: error.message })
    }
    return reply.code(200).send()
  })

  /** Without a sid the token means every session of the user (§2.4); one that is already out is out. */
  const signOut = ({ sid, sub }: LogoutToken): void => {
    const meant = [...logins.values()].filter((login) => (sid === null ? login.sub === sub : login.sid === sid))
    for (const login of meant.filter(({ endedAt }) => endedAt === null)) {
      login.endedAt = new Date().toISOString()
      options.onSignedOut(login)
    }
    showAll()
  }

  return {
    start: async (): Promise<void> => void (await app.listen({ host: options.host, port: options.port })),
    stop: async (): Promise<void> => {
      app.server.closeAllConnections()
      await app.close()
    },
  }
}

const randomName = (): string => randomBytes(24).toString('base64url')

const dropOldest = (map: Map<string, unknown>, limit: number): void => {
  const [oldest] = map.keys()
  if (map.size > limit && oldest !== undefined) map.delete(oldest)
}

const cookieOf = (request: FastifyRequest): string | undefined =>
  new RegExp(`(?:^|; )${COOKIE}=([\\w-]+)`).exec(request.headers.cookie ?? '')?.[1]
