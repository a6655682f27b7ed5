/** `POST /v1/revocations` and what can be seen of one; the engine that carries them out has tests of its own. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { seedSessions } from '../harness/seed.ts'
import { startApi } from './api.ts'
import type { TestApi } from './api.ts'

let api: TestApi
let admin: string
beforeAll(async () => {
  api = await startApi()
  admin = await api.bearer({ permissions: ['revocation.write', 'revocation.read'], sub: 'admin' })
  const issuer = api.issuer.url
  await seedSessions(api.database.sql, [
    { id: 'a1', issuer, resourceOwner: 'o1', userId: 'alice' },
    { id: 'a2', issuer, resourceOwner: 'o1', userId: 'bob' },
    { id: 'b1', issuer, resourceOwner: 'o2', userId: 'carol' },
    { id: 'foreign', issuer: api.stranger.url, resourceOwner: 'o1', userId: 'alice' },
  ])
})
afterAll(() => api.close())

const post = (payload: object, { as = admin, headers = {} }: { as?: string; headers?: Record<string, string> } = {}) =>
  api.app.inject({ method: 'POST', url: '/v1/revocations', headers: { authorization: as, ...headers }, payload: JSON.stringify(payload) })
const get = (url: string, as = admin) => api.app.inject({ url, headers: { authorization: as } })
const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
const none = { total: '0', acknowledged: '0', pending: '0', failed: '0', moot: '0' }

describe('POST /v1/revocations', () => {
  it('G9: accepts with 202 what can be watched under its Location', async () => {
    const asked = { filter: { resourceOwners: ['o1'] }, exclude: { userIds: ['bob'] }, reason: 'stolen laptop', ticket: 'INC-1', pacing: { deliveriesPerSecond: 200 } }
    const answer = await post(asked)
    expect(answer.statusCode).toBe(202)
    const operation = answer.json()
    const id = operation.name.replace('revocations/', '')
    expect(answer.headers['location']).toBe(`/v1/revocations/${id}`)
    expect(operation).toEqual({
      name: expect.stringMatching(/^revocations\/[0-9a-f]{8}-[0-9a-f]{4}-7/),
      done: false,
      metadata: {
        state: 'running', notifications: 'running', mode: 'revoke', reason: 'stolen laptop', ticket: 'INC-1',
        actor: { issuer: api.issuer.url, subject: 'admin' }, issuers: [api.issuer.url], organizations: null,
        filter: expect.objectContaining({ resourceOwners: ['o1'], userIds: [], all: false }), exclude: { userIds: ['bob'], sessionIds: [] },
        pacing: { deliveriesPerSecond: 200 }, containment: 'rules', createTime: time, updateTime: time, cutoffTime: time,
        committedTime: null, enforcedTime: null, acknowledgedTime: null,
        sessions: { expected: '1', expectedExact: true, matched: '0', terminated: '0' }, deliveries: none,
      },
    })
    expect(api.bulkWoken).toContain(id)
    expect((await get(`/v1/revocations/${id}`)).json()).toEqual(operation)
  })

  it('previews without accepting anything', async () => {
    const answer = await post({ filter: { all: true }, reason: 'test', validateOnly: true })
    expect(answer.statusCode).toBe(200)
    expect(answer.json()).toMatchObject({ sessions: { count: '3', exact: true }, expectedLogins: 3, containment: 'rules', rules: 1, lookedAt: 3 })
  })
})
