/** Cutoff rules as a caller meets them: from the answer to setting one, nothing that it kills is good for anything. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { createSetRule } from '../../src/termination/cutoff-rules.ts'
import { startSessionApi } from './session-api.ts'
import type { SessionApi } from './session-api.ts'

let api: SessionApi
let registrar: string
beforeAll(async () => {
  api = await startSessionApi()
  registrar = await api.bearer({ sub: 'registrar', permissions: ['session.write', 'session.read', 'session.delete'] })
})
afterAll(() => api.close())

const setRule = (user: string) =>
  createSetRule({ maxLifetimeSeconds: 86_400, maxTokenLifetimeSeconds: 3_600 })(api.db, {
    issuer: api.issuer.url, organization: null, user, bornBefore: null, excludeUsers: [], excludeSessions: [],
    reason: 'test', actor: { issuer: api.issuer.url, subject: 'admin' }, revocationId: null,
  })
const underRule = { code: 9, message: 'Session was born under a cutoff rule (COMMAND-Hewfq)' }

it('is 409 code 9 to registering and changing, 404 to reading, not found by searching, and can be ended', async () => {
  const body = { userId: 'u1', resourceOwner: 'o1' }
  const { sessionToken } = (await api.call('PUT', '/v1/sessions/r1', { as: registrar, body })).json<{ sessionToken: string }>()
  await setRule('u1')
  const refused = await Promise.all([
    api.call('PUT', '/v1/sessions/r1', { as: registrar, body }),
    api.call('PUT', '/v1/sessions/r2', { as: registrar, body: { ...body, authTime: '2020-01-01T00:00:00Z' } }),
    api.call('PATCH', '/v1/sessions/r1', { as: registrar, body: {} }),
    api.call('PUT', '/v1/sessions/r1/clients/late', { as: registrar, body: {} }),
  ])
  for (const answer of refused) expect([answer.statusCode, answer.json()]).toMatchObject([409, underRule])
  const batch = await api.call('POST', '/v1/sessions:batchCreate', { as: registrar, body: { sessions: [{ id: 'r3', ...body, userId: 'u2' }, { id: 'r1', ...body }] } })
  expect([batch.statusCode, batch.json()]).toMatchObject([409, { code: 9, message: expect.stringContaining('sessions[1]: Session was born under a cutoff rule') }])
  for (const query of ['', `?sessionToken=${sessionToken}`]) expect((await api.call('GET', `/v2/sessions/r1${query}`, { as: registrar })).statusCode).toBe(404)
  const found = await api.call('POST', '/v2/sessions/search', { as: registrar, body: { queries: [{ userIdQuery: { id: 'u1' } }] } })
  expect(found.json()).toEqual({ details: { timestamp: expect.any(String) } })
  const ended = await api.call('DELETE', '/v2/sessions/r1', { as: registrar })
  // The late participant was stored, so it is told: its event came before.
  expect([ended.statusCode, ended.json()]).toMatchObject([200, { details: { sequence: '3' } }])
})

it('refuses its bearer tokens at once, also of a caller without a session and one that was remembered', async () => {
  const claims = { sub: 'u7', permissions: ['session.read'] }
  const tokens = [await api.bearer(claims), await api.bearer({ ...claims, sid: 'somewhere' })]
  for (const as of tokens) expect((await api.call('GET', '/v2/sessions/none', { as })).statusCode).toBe(404)
  await setRule('u7')
  for (const as of tokens) {
    const answer = await api.call('GET', '/v2/sessions/none', { as })
    expect([answer.statusCode, answer.json()]).toMatchObject([401, { code: 16, message: 'Errors.Token.Invalid (AUTH-7fs1e)' }])
  }
})

it('refuses the bearer tokens of the flood within a second', async () => {
  const as = await api.bearer({ sub: 'service', permissions: ['session.delete'] })
  expect((await api.delete('none', { as })).statusCode).toBe(404)
  await setRule('service')
  const setAt = performance.now()
  await expect.poll(async () => (await api.delete('none', { as })).statusCode, { interval: 20, timeout: 5_000 }).toBe(401)
  expect(performance.now() - setAt).toBeLessThan(3_000)
})
