import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { seedSessions } from '../harness/seed.ts'
import { startRevocationApi } from './revocation-rig.ts'
import type { RevocationApi } from './revocation-rig.ts'

let api: RevocationApi
const more = (from: number, count: number, change: { resourceOwner?: string; userId?: string } = {}) =>
  seedSessions(api.database.sql, Array.from({ length: count }, (_, n) => ({ id: `s${from + n}`, issuer: api.issuer.url, resourceOwner: 'o1', userId: `u${from + n}`, ...change })))

beforeAll(async () => {
  api = await startRevocationApi({ previewThreshold: 5 })
  const issuer = api.issuer.url
  await seedSessions(api.database.sql, [
    { id: 'p1', issuer, resourceOwner: 'seen', userId: 'alice', clients: [{ clientId: 'app' }, { clientId: 'shop' }] },
    { id: 'p2', issuer, resourceOwner: 'seen', userId: 'alice', clients: [{ clientId: 'app' }] },
    { id: 'p3', issuer, resourceOwner: 'seen', userId: 'bob' },
    { id: 'expired', issuer, resourceOwner: 'seen', userId: 'eve', expiresInSeconds: -10 },
    { id: 'ended', issuer, resourceOwner: 'seen', userId: 'eve' },
  ])
  await api.database.sql.query(`UPDATE sessions SET state = 'terminated', terminated_at = now() WHERE id = 'ended'`)
  await api.database.sql.query(
    `INSERT INTO receivers (id, type, url, issuer, client_id, resource_owner, events, enabled, broken_until, secret) VALUES
       ('app', 'backchannel_logout', 'https://r.example', $1, 'app', NULL, '{}', true, NULL, NULL),
       ('shop', 'backchannel_logout', 'https://r.example', $1, 'shop', 'seen', '{}', true, now() + interval '1 hour', NULL),
       ('elsewhere', 'backchannel_logout', 'https://r.example', $1, 'app', 'other', '{}', true, NULL, NULL),
       ('hook', 'webhook', 'https://r.example', $1, NULL, 'seen', '{session.terminated}', false, NULL, 'x'),
       ('deaf', 'webhook', 'https://r.example', $1, NULL, 'seen', '{revocation.completed}', true, NULL, 'x')`, [issuer])
})
afterAll(() => api.close())

const preview = async (filter: object, change: object = {}, as?: string) => {
  const answer = await api.post({ filter, reason: 'test', validateOnly: true, ...change }, as === undefined ? {} : { as })
  expect(answer.statusCode).toBe(200)
  return answer.json()
}

describe('a preview', () => {
  it('says what would end, whom that concerns, and who cannot be reached', async () => {
    const before = await api.accepted()
    const seen = await preview({ resourceOwners: ['seen'] })
    const time = expect.stringMatching(/Z$/)
    const session = { issuer: api.issuer.url, resourceOwner: 'seen', born: time, expirationDate: time }
    expect({ ...seen, sample: seen.sample.toSorted((one: { sessionId: string }, other: { sessionId: string }) => one.sessionId.localeCompare(other.sessionId)) }).toEqual({
      sessions: { count: '3', exact: true },
      expectedLogins: 2,
      containment: 'rules',
      rules: 1,
      includesCaller: false,
      cutoffTime: time,
      lookedAt: 3,
      sample: [{ ...session, sessionId: 'p1', userId: 'alice' }, { ...session, sessionId: 'p2', userId: 'alice' }, { ...session, sessionId: 'p3', userId: 'bob' }],
      organizations: [{ resourceOwner: 'seen', count: 3 }],
      clients: [{ clientId: 'app', count: 2 }, { clientId: 'shop', count: 1 }],
      receivers: [
        { id: 'hook', type: 'webhook', clientId: null, count: 3, reachability: 'disabled' },
        { id: 'shop', type: 'backchannel_logout', clientId: 'shop', count: 1, reachability: 'open' },
        { id: 'app', type: 'backchannel_logout', clientId: 'app', count: 2, reachability: 'reachable' },
      ],
      previewToken: expect.any(String),
      previewTokenExpireTime: time,
    })
    expect(Date.parse(seen.previewTokenExpireTime) - Date.now()).toBeGreaterThan(595_000)
    expect([await api.accepted(), api.bulkWoken]).toEqual([before, []])
  })

  it('counts what the revocation would: expired sessions where they are asked for, and nobody excluded', async () => {
    expect(await preview({ resourceOwners: ['seen'], includeExpired: true })).toMatchObject({ sessions: { count: '4' } })
    expect(await preview({ resourceOwners: ['seen'] }, { exclude: { userIds: ['alice'] } })).toMatchObject({ sessions: { count: '1' }, lookedAt: 1 })
    expect(await preview({ clientIds: ['app', 'shop'] })).toMatchObject({ sessions: { count: '2' }, lookedAt: 2, containment: 'rows', rules: 0 })
    expect(await preview({ userIds: ['nobody'] })).toMatchObject({ sessions: { count: '0', exact: true }, expectedLogins: 0, sample: [], receivers: [] })
  })
})

describe('a preview for who would end themselves', () => {
  const seen = async (claims: object, filter: object, exclude: object = {}) =>
    (await preview(filter, { exclude }, await api.bearer({ permissions: ['revocation.write'], ...claims }))).includesCaller

  it('says so', async () => {
    await seedSessions(api.database.sql, [
      { id: 'own', issuer: api.issuer.url, resourceOwner: 'home', userId: 'me', clients: [{ clientId: 'console', sid: 'own-at-console' }] },
    ])
    const me = { sub: 'me' }
    expect(await seen(me, { all: true })).toBe(true)
    expect(await seen(me, { userIds: ['me'] })).toBe(true)
    expect(await seen({ ...me, org: 'home' }, { resourceOwners: ['home'] })).toBe(true)
    for (const sid of ['own', 'own-at-console']) {
      expect(await seen({ ...me, sid }, { resourceOwners: ['home'] })).toBe(true)
      expect(await seen({ ...me, sid }, { clientIds: ['console'] })).toBe(true)
    }
    expect(await seen({ ...me, iat: Math.floor(Date.now() / 1_000) - 100 }, { bornBefore: new Date(Date.now() - 50_000).toISOString() })).toBe(true)
  })

  it('and does not where they are spared, or somebody else is meant', async () => {
    const me = { sub: 'me', sid: 'own' }
    expect(await seen(me, { all: true }, { userIds: ['me'] })).toBe(false)
    expect(await seen(me, { all: true }, { sessionIds: ['own'] })).toBe(false)
    expect(await seen(me, { userIds: ['you'] })).toBe(false)
    expect(await seen(me, { resourceOwners: ['elsewhere'] })).toBe(false)
    expect(await seen(me, { clientIds: ['elsewhere'] })).toBe(false)
    expect(await seen({ sub: 'me' }, { bornBefore: '2020-01-01T00:00:00Z' })).toBe(false)
  })
})

describe('above the threshold', () => {
  const filter = { resourceOwners: ['o1'] }
  const accept = (previewToken: string | null, change: object = {}, as?: string) =>
    api.post({ filter, reason: 'test', previewToken, ...change }, as === undefined ? {} : { as })
  beforeAll(() => more(0, 20))

  it('a preview is needed, of the same body and by the same caller', async () => {
    const before = await api.accepted()
    expect((await accept(null)).json()).toMatchObject({ code: 9, details: [{ id: 'PREVIEW_REQUIRED' }] })
    const { previewToken } = await preview(filter)
    const colleague = await api.bearer({ permissions: ['revocation.write'], sub: 'colleague' })
    const bound = await api.bearer({ permissions: ['revocation.write'], sub: 'admin', org: 'o1' })
    for (const answer of [
      await accept('made.up'), await accept(`${previewToken}x`), await accept(previewToken, { reason: 'another' }), await accept(previewToken, { mode: 'logout' }),
      await accept(previewToken, { filter: { resourceOwners: ['o1', 'seen'] } }), await accept(previewToken, { exclude: { userIds: ['u1'] } }),
      await accept(previewToken, { ticket: 'INC-2' }), await accept(previewToken, {}, colleague), await accept(previewToken, {}, bound),
    ]) expect([answer.statusCode, answer.json().details[0].id]).toEqual([400, 'PREVIEW_REQUIRED'])
    expect(await api.accepted()).toBe(before)
    expect((await accept(previewToken)).statusCode).toBe(202)
  })

  it('one that no longer holds is refused, by more than a tenth either way', async () => {
    const { previewToken } = await preview(filter)
    await more(20, 2)
    expect((await accept(previewToken)).statusCode).toBe(202)
    await more(22, 1)
    expect((await accept(previewToken)).json()).toMatchObject({ code: 9, details: [{ id: 'PREVIEW_DRIFT' }] })
    await api.database.sql.query(`UPDATE sessions SET state = 'terminated', terminated_at = now() WHERE resource_owner = 'o1' AND id IN ('s0', 's1', 's2', 's3', 's4', 's5')`)
    expect((await accept(previewToken)).json()).toMatchObject({ code: 9, details: [{ id: 'PREVIEW_DRIFT' }] })
    const again = await preview(filter)
    expect(again.sessions).toEqual({ count: '17', exact: true })
    expect((await accept(again.previewToken)).statusCode).toBe(202)
  })

  it('a repeat under its Idempotency-Key needs none', async () => {
    const { previewToken } = await preview(filter)
    const headers = { 'idempotency-key': 'previewed' }
    const first = await api.post({ filter, reason: 'test', previewToken }, { headers })
    const again = await api.post({ filter, reason: 'test' }, { headers })
    expect([first.statusCode, again.statusCode, again.json().name]).toEqual([202, 202, first.json().name])
  })

  it('none is needed at the threshold', async () => {
    await more(100, 5, { resourceOwner: 'five' })
    expect((await api.post({ filter: { resourceOwners: ['five'] }, reason: 'test' })).statusCode).toBe(202)
  })
})
