/** `POST /v1/introspect` (RFC 7662): what is good at this moment, and nothing about what is not. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createAuthenticate } from '../../src/auth/authenticate.ts'
import { createJudgeToken } from '../../src/auth/judge-token.ts'
import { createTrust } from '../../src/auth/trust.ts'
import { createAuthorizationReader } from '../../src/store/authorization.ts'
import type { Death } from '../../src/store/authorization.ts'
import { createSetRule } from '../../src/termination/cutoff-rules.ts'
import { callerWith, silentLog } from '../auth/bench.ts'
import { seedSessions } from '../harness/seed.ts'
import { startApi } from './api.ts'
import type { TestApi } from './api.ts'

let api: TestApi
let reader: string
beforeAll(async () => {
  api = await startApi()
  reader = await api.bearer({ permissions: ['session.read'], sub: 'resource-server' })
})
afterAll(() => api.close())

const form = (fields: Record<string, string>): string => new URLSearchParams(fields).toString()
const introspect = (token: string, options: { as?: string; payload?: string; type?: string } = {}) =>
  api.app.inject({
    method: 'POST',
    url: '/v1/introspect',
    headers: { authorization: options.as ?? reader, 'content-type': options.type ?? 'application/x-www-form-urlencoded' },
    payload: options.payload ?? form({ token, token_type_hint: 'access_token' }),
  })
const setRule = createSetRule({ maxLifetimeSeconds: 86_400, maxTokenLifetimeSeconds: 3_600 })
const rule = (change: { user?: string; organization?: string; bornBefore?: string } = {}) =>
  setRule(api.db, {
    issuer: api.issuer.url, organization: change.organization ?? null, user: change.user ?? null, bornBefore: change.bornBefore ?? null,
    excludeUsers: [], excludeSessions: [], reason: 'test', actor: { issuer: api.issuer.url, subject: 'admin' }, revocationId: null,
  })
const inactive = '{"active":false}'

describe('POST /v1/introspect', () => {
  it('answers a good token with what its issuer says of it, and may not be cached', async () => {
    const claims = { sub: 'alice', sid: 'nobody-registered-it', scope: 'a b', client_id: 'shop', auth_time: 1_700_000_000, secret: 'x', jti: 7, cnf: { jkt: 'k' } }
    const answer = await introspect(await api.issuer.token(claims))
    expect(answer.statusCode).toBe(200)
    expect(answer.headers['cache-control']).toBe('no-store')
    expect(answer.json()).toEqual({
      active: true, iss: api.issuer.url, aud: 'curfew', sub: 'alice', sid: 'nobody-registered-it', scope: 'a b', client_id: 'shop',
      auth_time: 1_700_000_000, exp: expect.any(Number), iat: expect.any(Number), cnf: { jkt: 'k' },
    })
  })

  it('answers exactly {"active":false} for every token that is not good', async () => {
    const { issuer, stranger } = api
    const good = await issuer.token({})
    const bad = [
      'x', 'a.b.c', good.slice(0, -2), `${good}.x.y`, 'x'.repeat(9_000), await issuer.token({ exp: 1 }), await issuer.token({ aud: 'other' }),
      await issuer.token({ iss: 'https://unknown.example' }), await issuer.token({}, { typ: 'JWT' }), await issuer.token({ nonce: 'id-token' }),
      // Of an issuer that the caller does not speak for.
      await stranger.token({}),
    ]
    for (const token of bad) {
      const answer = await introspect(token)
      expect([answer.statusCode, answer.body, answer.headers['cache-control']]).toEqual([200, inactive, 'no-store'])
    }
  })

  it('is false from the moment the session is terminated, by its id and by a participant’s sid, and counts the attempts', async () => {
    await seedSessions(api.database.sql, [{ id: 'i1', issuer: api.issuer.url, clients: [{ clientId: 'shop', sid: 'shop-sid' }] }])
    const tokens = [await api.issuer.token({ sid: 'i1' }), await api.issuer.token({ sid: 'shop-sid' })]
    for (const token of tokens) expect((await introspect(token)).json()).toMatchObject({ active: true })
    const admin = await api.bearer({ permissions: ['session.delete'] })
    expect((await api.delete('i1', { as: admin })).statusCode).toBe(200)
    for (const token of tokens) expect((await introspect(token)).body).toBe(inactive)
    const attempts = () => api.app.inject({ url: '/v1/attempts?sessionId=i1', headers: { authorization: reader } })
    await expect.poll(async () => (await attempts()).json()).toMatchObject({ attempts: [{ issuer: api.issuer.url, count: '2' }] })
  })

  it('is false from the moment a rule kills the token or its session, and counts the attempts by the rule', async () => {
    await seedSessions(api.database.sql, [{ id: 'i2', issuer: api.issuer.url, userId: 'carol', resourceOwner: 'o7' }])
    const bySession = await api.issuer.token({ sid: 'i2', sub: 'carol-at-shop', iat: Math.floor(Date.now() / 1_000) + 20 })
    const byUser = await api.issuer.token({ sub: 'dave' })
    const byOrganization = await api.issuer.token({ sub: 'erin', org: 'o8' })
    for (const token of [bySession, byUser, byOrganization]) expect((await introspect(token)).json()).toMatchObject({ active: true })
    const rules = [await rule({ organization: 'o7' }), await rule({ user: 'dave' }), await rule({ organization: 'o8' })]
    for (const token of [bySession, byUser, byOrganization, byUser]) expect((await introspect(token)).body).toBe(inactive)
    const counts = () => Promise.all(rules.map(async ({ id }) => {
      const answer = await api.app.inject({ url: `/v1/attempts?ruleId=${id}`, headers: { authorization: reader } })
      return answer.json<{ attempts: { count: string }[] }>().attempts.map(({ count }) => count)
    }))
    await expect.poll(counts).toEqual([['1'], ['2'], ['1']])
  })

  it('needs session.read for the instance, before anything of the body is looked at', async () => {
    const none = [await api.bearer({}), await api.bearer({ permissions: ['session.read'], org: 'o1' }), await api.bearer({ permissions: ['session.delete'] })]
    for (const as of none) expect((await introspect('x', { as, payload: '' })).json()).toMatchObject({ code: 7 })
    expect((await introspect('x', { as: 'Bearer x' })).statusCode).toBe(401)
  })

  it('refuses what is no form, has no token, or a parameter twice', async () => {
    expect((await introspect('x', { type: 'application/json', payload: '{"token":"x"}' })).json()).toMatchObject({ code: 3 })
    for (const payload of ['', 'token=', 'token_type_hint=x', 'token=a&token=b']) {
      const answer = await introspect('', { payload })
      expect([answer.statusCode, answer.json<{ code: number }>().code], payload).toEqual([400, 3])
    }
    expect((await introspect('x', { payload: `token=${'x'.repeat(40_000)}` })).statusCode).toBe(413)
  })
})

describe('judging tokens of others', () => {
  it('takes audiences that Curfew itself does not', async () => {
    const log = silentLog
    const entry = api.issuer.entry({ introspectedAudiences: ['orders'] })
    const trust = createTrust({ issuers: [entry], log })
    const counted: Death[] = []
    const judge = createJudgeToken({ trust, read: createAuthorizationReader(api.db), count: (death) => counted.push(death), log })
    const caller = callerWith({ actor: { issuer: api.issuer.url, subject: 'orders' }, sessionIssuers: [api.issuer.url] })
    const token = await api.issuer.token({ aud: 'orders', sub: 'frank' })
    expect(await judge(caller, token)).toMatchObject({ sub: 'frank', aud: 'orders' })
    await expect(createAuthenticate({ trust, log })(`Bearer ${token}`)).rejects.toMatchObject({ kind: 'token_invalid' })
    expect(counted).toEqual([])
  })

  it('asks the issuer about opaque tokens, and says when it does not answer', async () => {
    const log = silentLog
    const entry = api.stranger.introspectionEntry()
    const judge = createJudgeToken({ trust: createTrust({ issuers: [entry], log }), read: createAuthorizationReader(api.db), count: () => {}, log })
    const caller = callerWith({ actor: { issuer: api.stranger.url, subject: 'orders' }, sessionIssuers: [] })
    expect(await judge(caller, api.stranger.opaque({ sub: 'grace', sid: 's', token_type: 'DPoP' }))).toMatchObject({ iss: api.stranger.url, sub: 'grace' })
    expect(await judge(caller, 'unknown')).toBeNull()
    expect(await judge(caller, api.stranger.opaque({ token_type: 'refresh_token' }))).toBeNull()
    api.stranger.setIntrospectionMode('fail')
    await expect(judge(caller, api.stranger.opaque())).rejects.toMatchObject({ kind: 'issuer_unavailable' })
    api.stranger.setIntrospectionMode('ok')
  })
})
