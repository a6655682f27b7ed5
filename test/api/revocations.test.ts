/** `POST /v1/revocations`, accepted; the engine that carries it out has tests of its own. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { seedSessions } from '../harness/seed.ts'
import { startRevocationApi } from './revocation-rig.ts'
import type { RevocationApi } from './revocation-rig.ts'

let api: RevocationApi
beforeAll(async () => {
  api = await startRevocationApi()
  const issuer = api.issuer.url
  await seedSessions(api.database.sql, [
    { id: 'a1', issuer, resourceOwner: 'o1', userId: 'alice' },
    { id: 'a2', issuer, resourceOwner: 'o1', userId: 'bob' },
    { id: 'b1', issuer, resourceOwner: 'o2', userId: 'carol' },
    { id: 'foreign', issuer: api.stranger.url, resourceOwner: 'o1', userId: 'alice' },
  ])
})
afterAll(() => api.close())

const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
const none = { total: '0', acknowledged: '0', pending: '0', failed: '0', moot: '0' }
const rulesOf = async (id: string) => {
  const { rows } = await api.database.sql.query(
    `SELECT issuer, resource_owner, user_id, exclude_users, exclude_sessions, reason, actor_subject, cutoff = (SELECT cutoff_time FROM revocations WHERE id = $1) AS agrees
     FROM cutoff_rules WHERE revocation_id = $1 ORDER BY version`, [id])
  return rows
}

describe('a revocation', () => {
  it('G9: is accepted with 202 as something that can be watched under its Location', async () => {
    const asked = { filter: { resourceOwners: ['o1'] }, exclude: { userIds: ['bob'] }, reason: 'stolen laptop', ticket: 'INC-1', pacing: { deliveriesPerSecond: 200 } }
    const answer = await api.post(asked)
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
    expect((await api.call('GET', `/v1/revocations/${id}`)).json()).toEqual(operation)
    const { rows } = await api.database.sql.query('SELECT type, actor_subject FROM revocation_events WHERE revocation_id = $1', [id])
    expect(rows).toEqual([{ type: 'revocation.accepted', actor_subject: 'admin' }])
  })

  it('G4: is there with its rules, or neither is', async () => {
    const rule = { issuer: api.issuer.url, reason: 'stolen laptop', actor_subject: 'admin', exclude_users: ['bob'], exclude_sessions: ['a2'], agrees: true }
    const body = { filter: { resourceOwners: ['o1', 'o2'], userIds: ['alice'] }, exclude: { userIds: ['bob'], sessionIds: ['a2'] }, reason: 'stolen laptop' }
    expect(await rulesOf(await api.accept(body))).toEqual([
      { ...rule, resource_owner: 'o1', user_id: 'alice' }, { ...rule, resource_owner: 'o2', user_id: 'alice' },
    ])
    const before = await api.accepted()
    await api.database.sql.query(`ALTER TABLE cutoff_rules ADD CONSTRAINT broken CHECK (reason <> 'broken')`)
    expect((await api.post({ ...body, reason: 'broken' }, { headers: { 'idempotency-key': 'broken' } })).statusCode).toBe(500)
    expect(await api.accepted()).toBe(before)
    await api.database.sql.query('ALTER TABLE cutoff_rules DROP CONSTRAINT broken')
    expect((await api.post({ ...body, reason: 'broken' }, { headers: { 'idempotency-key': 'broken' } })).statusCode).toBe(202)
  })

  it('is in force with its answer: what it contains is not read, and refused where it comes', async () => {
    const reader = await api.bearer({ permissions: ['session.read', 'session.write'], sub: 'reader' })
    await seedSessions(api.database.sql, [{ id: 'contained', issuer: api.issuer.url, resourceOwner: 'o3', userId: 'dave' }])
    await api.accept({ filter: { resourceOwners: ['o3'] } })
    expect((await api.app.inject({ url: '/v2/sessions/contained', headers: { authorization: reader } })).statusCode).toBe(404)
    const register = (authTime: string) => api.app.inject({
      method: 'PUT', url: `/v1/sessions/${authTime.replaceAll(/\W/g, '')}`, headers: { authorization: reader },
      payload: { userId: 'dave', resourceOwner: 'o3', authTime },
    })
    expect((await register(new Date(Date.now() - 60_000).toISOString())).json()).toMatchObject({ code: 9 })
    // The cutoff is a whole second, so what is born within it dies with the rest.
    await expect.poll(async () => (await register(new Date().toISOString())).statusCode, { timeout: 5_000 }).toBe(201)
  })

  it('by anything but organizations, users and birth waits for its rows', async () => {
    const filters = [{ sessionIds: ['a1'] }, { clientIds: ['c'] }, { fingerprintIds: ['f'] }, { ips: ['10.0.0.0/8', '2001:db8::1'] }, { resourceOwners: ['o1'], bornAfter: '2020-01-01T00:00:00Z' }]
    for (const filter of filters) {
      const id = await api.accept({ filter })
      expect((await api.call('GET', `/v1/revocations/${id}`)).json()).toMatchObject({ metadata: { containment: 'rows' } })
      expect(await rulesOf(id)).toEqual([])
    }
  })

  it('has as its cutoff the earlier of bornBefore and now, rounded up to a second', async () => {
    const cutoff = async (bornBefore?: string) => {
      const id = await api.accept({ filter: { resourceOwners: ['o9'], ...(bornBefore === undefined ? {} : { bornBefore }) } })
      return Date.parse((await api.call('GET', `/v1/revocations/${id}`)).json().metadata.cutoffTime)
    }
    expect(await cutoff('2026-01-01T12:00:00.001+02:00')).toBe(Date.parse('2026-01-01T10:00:01Z'))
    for (const bornBefore of [undefined, '2400-01-01T00:00:00Z']) {
      const before = Date.now()
      const at = await cutoff(bornBefore)
      expect(at % 1_000).toBe(0)
      expect(at).toBeGreaterThanOrEqual(before)
      expect(at).toBeLessThanOrEqual(Date.now() + 1_000)
    }
  })
})

describe('an Idempotency-Key', () => {
  const body = { filter: { userIds: ['alice', 'bob'] }, reason: 'test' }
  const post = (key: string, change: object = {}, as = api.admin) => api.post({ ...body, ...change }, { as, headers: { 'idempotency-key': key } })

  it('makes a repeat the same revocation, also of many at once', async () => {
    const before = await api.accepted()
    const answers = await Promise.all(Array.from({ length: 12 }, () => post('many')))
    expect(answers.map(({ statusCode }) => statusCode)).toEqual(answers.map(() => 202))
    expect(new Set(answers.map((answer) => answer.json().name)).size).toBe(1)
    expect((await post('"many"', { filter: { userIds: ['bob', 'alice', 'bob'] } })).json().name).toBe(answers[0]?.json().name)
    expect(await api.accepted()).toBe(before + 1)
  })

  it('is refused with another body', async () => {
    expect((await post('one')).statusCode).toBe(202)
    for (const change of [{ reason: 'other' }, { filter: { userIds: ['alice'] } }, { exclude: { userIds: ['bob'] } }, { mode: 'logout' }]) {
      const answer = await post('one', change)
      expect([answer.statusCode, answer.json().code]).toEqual([409, 6])
    }
  })

  it('is the caller’s own', async () => {
    const mine = await post('shared')
    const other = await api.bearer({ permissions: ['revocation.write'], sub: 'other' })
    const theirs = await post('shared', { reason: 'other' }, other)
    expect(theirs.statusCode).toBe(202)
    expect(theirs.json().name).not.toBe(mine.json().name)
  })

  it('can be used for something else after a day', async () => {
    const first = await post('day')
    await api.database.sql.query(`UPDATE idempotency_keys SET created_at = now() - interval '25 hours' WHERE key = 'day'`)
    const second = await post('day', { reason: 'other' })
    expect([second.statusCode, second.json().name === first.json().name]).toEqual([202, false])
    expect((await post('day', { reason: 'other' })).json().name).toBe(second.json().name)
  })

  it('is not used up by what was not accepted', async () => {
    expect((await post('refused', { filter: {} })).statusCode).toBe(400)
    expect((await post('refused', { validateOnly: true })).statusCode).toBe(200)
    expect((await post('refused')).statusCode).toBe(202)
  })

  it('must be printable and of a reasonable length', async () => {
    for (const key of ['', '""', 'a b', 'x'.repeat(201)]) expect((await post(key)).json()).toMatchObject({ code: 3 })
  })
})
