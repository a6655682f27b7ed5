import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import express from 'express'
import Fastify from 'fastify'
import { describe, expect, it } from 'vitest'
import { createGuardOver } from '../../src/client/guard.ts'
import { expressGuard, fastifyGuard, questionOf } from '../../src/client/middleware.ts'
import type { AttemptOnTheWire, EntryOnTheWire } from '../../src/client/wire.ts'

const ISSUER = 'https://id.example'
const HOUR_MS = 3_600_000

/** A guard that has learnt this, from a source of the test's own. */
const guardThatKnows = async (entry: EntryOnTheWire, freshAgoMs = 0) => {
  const attempts: AttemptOnTheWire[] = []
  const guard = await createGuardOver({
    follow: async (sink, signal) => {
      sink.learn(entry)
      sink.fresh(performance.now() - freshAgoMs)
      if (!signal.aborted) await once(signal, 'abort')
    },
  }, { maxStaleMs: 10_000, reportAttempts: (batch) => void attempts.push(...batch) })
  return { guard, attempts }
}

const known: EntryOnTheWire = {
  ended: [{ issuer: ISSUER, sessionIds: ['dead'], expiresMs: [Date.now() + HOUR_MS] }],
  rules: [{
    id: 'r1', issuer: ISSUER, organization: 'o1', user: null, cutoffMs: 1_700_000_000_000,
    excludeUsers: ['root'], excludeSessions: [], expiresMs: Date.now() + HOUR_MS,
  }],
}
const claimsOf = (header: string | undefined) => (header === undefined ? null : (JSON.parse(header) as Record<string, unknown>))

const apps = {
  express: async (guard: Awaited<ReturnType<typeof guardThatKnows>>['guard']) => {
    const app = express()
    app.use(expressGuard(guard, (request: express.Request) => {
      const claims = claimsOf(request.get('x-claims'))
      return claims === null ? null : questionOf(claims, 'org')
    }))
    app.get('/', (_request, response) => void response.send('fine'))
    app.use((_error: unknown, _request: express.Request, response: express.Response, _next: express.NextFunction) => void response.status(500).end())
    const server = createServer(app).listen(0, '127.0.0.1')
    await once(server, 'listening')
    return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, close: () => void server.close() }
  },
  fastify: async (guard: Awaited<ReturnType<typeof guardThatKnows>>['guard']) => {
    const app = Fastify()
    app.addHook('onRequest', fastifyGuard(guard, (request: { headers: Record<string, unknown> }) => {
      const claims = claimsOf(request.headers['x-claims'] as string | undefined)
      return claims === null ? null : questionOf(claims, 'org')
    }))
    app.get('/', () => 'fine')
    return { url: await app.listen({ port: 0, host: '127.0.0.1' }), close: () => app.close() }
  },
}

describe.each(['express', 'fastify'] as const)('the middleware for %s', (kind) => {
  const ask = async (claims: Record<string, unknown> | string | null, freshAgoMs = 0) => {
    const { guard } = await guardThatKnows(known, freshAgoMs)
    const { url, close } = await apps[kind](guard)
    const headers: Record<string, string> = claims === null ? {} : { 'x-claims': typeof claims === 'string' ? claims : JSON.stringify(claims) }
    const response = await fetch(url, { headers: { ...headers, connection: 'close' } })
    const answer = { status: response.status, headers: response.headers, text: await response.text() }
    await close()
    await guard.close()
    return answer
  }

  it('lets pass what is alive', async () => {
    expect(await ask({ iss: ISSUER, sid: 'alive', sub: 'u1', org: 'o1', auth_time: 1_700_000_001 })).toMatchObject({ status: 200, text: 'fine' })
  })

  it.each([
    ['a session that has ended', { iss: ISSUER, sid: 'dead', sub: 'u1', iat: 1_800_000_000 }],
    ['a token of the second of a cutoff', { iss: ISSUER, sid: 'alive', sub: 'u1', org: 'o1', iat: 1_700_000_000 }],
    ['an old session with a new token', { iss: ISSUER, sid: 'alive', sub: 'u1', org: 'o1', auth_time: 1_600_000_000, iat: 1_800_000_000 }],
    ['a token under a rule that does not say when it was born', { iss: ISSUER, sub: 'u1', org: 'o1' }],
  ])('refuses %s', async (_name, claims) => {
    const { status, headers, text } = await ask(claims)
    expect(status).toBe(401)
    expect(headers.get('www-authenticate')).toBe('Bearer error="invalid_token", error_description="The session has ended"')
    expect(headers.get('cache-control')).toBe('no-store')
    expect(JSON.parse(text)).toMatchObject({ error: 'invalid_token' })
  })

  it('lets pass whom a rule excludes, and the same id of another issuer', async () => {
    expect((await ask({ iss: ISSUER, sub: 'root', org: 'o1', iat: 1 })).status).toBe(200)
    expect((await ask({ iss: 'https://other.example', sid: 'dead', org: 'o1', iat: 1 })).status).toBe(200)
  })

  it('refuses a request without a verified token', async () => {
    expect((await ask(null)).status).toBe(401)
    expect((await ask({ sub: 'u1' })).status).toBe(401)
  })

  it('answers 503 where nobody knows', async () => {
    const { status, headers } = await ask({ iss: ISSUER, sid: 'alive', iat: 1_800_000_000 }, 20_000)
    expect([status, headers.get('retry-after')]).toEqual([503, '1'])
    expect((await ask({ iss: ISSUER, sid: 'dead' }, 20_000)).status).toBe(401)
  })

  it('hands on what its user’s own function throws', async () => {
    expect((await ask('{broken')).status).toBe(500)
  })
})

it('counts what it refused, by session and by rule, and hands it on when it closes', async () => {
  const { guard, attempts } = await guardThatKnows(known)
  for (let n = 0; n < 3; n += 1) guard.check({ issuer: ISSUER, sessionId: 'dead' })
  guard.check({ issuer: ISSUER, organization: 'o1', born: 1 })
  guard.check({ issuer: ISSUER, sessionId: 'alive' })
  await guard.close()
  expect(attempts).toEqual([{ issuer: ISSUER, sessionId: 'dead', count: 3 }, { issuer: ISSUER, ruleId: 'r1', count: 1 }])
})

it('takes seconds, milliseconds and dates for what they are, and nonsense for older than every cutoff', async () => {
  const { guard } = await guardThatKnows(known)
  const verdictOf = (born: number | Date | null | undefined) => guard.check({ issuer: ISSUER, organization: 'o1', born })
  expect([1_700_000_001, 1_700_000_000_001, new Date(1_700_000_000_001)].map(verdictOf)).toEqual(['active', 'active', 'active'])
  expect([1_700_000_000, 1_700_000_000_000, new Date(1_700_000_000_000), null, undefined, NaN, -1, new Date(NaN)].map(verdictOf)).toEqual(Array(8).fill('cutoff'))
  await guard.close()
})
