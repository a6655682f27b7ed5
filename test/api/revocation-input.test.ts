import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startRevocationApi } from './revocation-rig.ts'
import type { RevocationApi } from './revocation-rig.ts'

let api: RevocationApi
beforeAll(async () => {
  api = await startRevocationApi({ callerPerSecond: 100_000 })
})
afterAll(() => api.close())

const good = { filter: { userIds: ['u'] }, reason: 'test' }
const id = '01890000-0000-7000-8000-000000000000'

describe('G12: a bad request changes nothing and is told why', () => {
  it.each([
    ['nothing', undefined],
    ['no object', []],
    ['broken JSON', '{"filter":'],
    ['no filter', { reason: 'x' }],
    ['an empty filter', { ...good, filter: {} }],
    ['a filter of empty lists', { ...good, filter: { userIds: [], sessionIds: null, all: false } }],
    ['includeExpired alone', { ...good, filter: { includeExpired: true } }],
    ['a misspelt filter', { ...good, filter: { userIds: ['u'], resourceowners: ['o'] } }],
    ['all beside another filter', { ...good, filter: { all: true, userIds: ['u'] } }],
    ['all beside a birth', { ...good, filter: { all: true, bornBefore: '2026-01-01T00:00:00Z' } }],
    ['a misspelt exclusion', { ...good, exclude: { userId: ['u'] } }],
    ['a misspelt field', { ...good, validateonly: true }],
    ['a field twice', '{"reason":"x","filter":{"userIds":["a"],"userIds":["b"]}}'],
    ['no reason', { filter: good.filter }],
    ['an empty reason', { ...good, reason: '' }],
    ['a long reason', { ...good, reason: 'x'.repeat(513) }],
    ['a reason with control characters', { ...good, reason: 'a\0b' }],
    ['a number for an id', { ...good, filter: { userIds: [1] } }],
    ['an empty id', { ...good, filter: { userIds: [''] } }],
    ['half a surrogate pair', { ...good, filter: { userIds: ['\ud800'] } }],
    ['a string for a list', { ...good, filter: { userIds: 'u' } }],
    ['too many ids', { ...good, filter: { userIds: Array.from({ length: 10_001 }, (_, n) => `${n}`) } }],
    ['no address', { ...good, filter: { ips: ['10.0.0'] } }],
    ['no CIDR', { ...good, filter: { ips: ['10.0.0.0/33'] } }],
    ['a CIDR with a nought before', { ...good, filter: { ips: ['2001:db8::/064'] } }],
    ['a CIDR of two noughts', { ...good, filter: { ips: ['::/00'] } }],
    ['an address with a zone', { ...good, filter: { ips: ['fe80::1%eth0'] } }],
    ['no time', { ...good, filter: { bornBefore: 'yesterday' } }],
    ['a time without an offset', { ...good, filter: { bornAfter: '2026-01-01T00:00:00' } }],
    ['births that cannot be', { ...good, filter: { bornAfter: '2026-01-02T00:00:00Z', bornBefore: '2026-01-01T00:00:00Z' } }],
    ['an unknown mode', { ...good, mode: 'destroy' }],
    ['a pace of nothing', { ...good, pacing: { deliveriesPerSecond: 0 } }],
    ['a pace without a number', { ...good, pacing: {} }],
  ])('%s', async (_name, body) => {
    const answer = await api.post(body)
    expect([answer.statusCode, answer.json()]).toEqual([400, { code: 3, message: expect.stringMatching(/.{5}/) }])
    expect([await api.accepted(), api.bulkWoken]).toEqual([0, []])
  })

  it('a body beyond a mebibyte', async () => {
    const answer = await api.post({ ...good, filter: { userIds: Array.from({ length: 10_000 }, (_, n) => `${n}`.padStart(110, '0')) } })
    expect([answer.statusCode, answer.json().code]).toEqual([413, 3])
  })

  it('steering with what it does not know', async () => {
    for (const body of [{ only: 'everything' }, { onlyy: 'notifications' }, [], '"pause"']) {
      expect((await api.call('POST', `/v1/revocations/${id}:pause`, { body })).json()).toMatchObject({ code: 3 })
    }
    expect((await api.call('POST', `/v1/revocations/${id}:stop`)).statusCode).toBe(405)
    expect((await api.call('GET', `/v1/revocations/${id}:pause`)).statusCode).toBe(405)
  })

  it('queries that make no sense', async () => {
    for (const query of ['state=ended', 'mode=x', 'pageSize=0', 'pageSize=201', 'pageToken=x', `pageToken=${Buffer.from("' OR 1").toString('base64url')}`, 'createdFrom=now', 'ticket=%00']) {
      expect((await api.call('GET', `/v1/revocations?${query}`)).json(), query).toMatchObject({ code: 3 })
    }
    for (const wait of ['-1', 'soon', '1m', '']) expect((await api.call('GET', `/v1/revocations/${id}?wait=${wait}`)).json(), wait).toMatchObject({ code: 3 })
  })
})

it('G12: whatever is sent, nothing breaks, and what is refused is told in the documented shape', async () => {
  const value = fc.oneof(fc.string(), fc.constant('2026-01-01T00:00:00Z'), fc.ipV4(), fc.integer(), fc.boolean(), fc.constant(null), fc.array(fc.string(), { maxLength: 3 }), fc.constant({}))
  const words = ['filter', 'exclude', 'mode', 'reason', 'ticket', 'pacing', 'validateOnly', 'previewToken', 'userIds', 'sessionIds', 'resourceOwners', 'clientIds', 'fingerprintIds', 'ips', 'bornBefore', 'bornAfter', 'includeExpired', 'all', 'deliveriesPerSecond']
  const kinds = fc.dictionary(fc.constantFrom(...words), value, { maxKeys: 5 })
  // Previews: who ends everybody ends their own token too.
  const body = fc.oneof(
    fc.record({ filter: fc.oneof(kinds, value), exclude: fc.oneof(kinds, fc.constant(undefined)), reason: fc.oneof(fc.constant('test'), value), mode: fc.constantFrom('logout', 'revoke', undefined), validateOnly: fc.constant(true) }),
    kinds,
    fc.json(),
    fc.string({ unit: 'binary' }),
  )
  await fc.assert(fc.asyncProperty(body, fc.constantFrom(undefined, 'key', ' ', '"'), async (sent, key) => {
    const answer = await api.post(sent, { headers: key === undefined ? {} : { 'idempotency-key': key } })
    expect([200, 400]).toContain(answer.statusCode)
    if (answer.statusCode >= 400) expect(answer.json()).toEqual(expect.objectContaining({ code: expect.any(Number), message: expect.any(String) }))
  }), { numRuns: 400 })
})

it('takes every RFC 3339 time, however far its offset and fine its fraction', async () => {
  await api.accept({ filter: { userIds: ['somebody'] } })
  for (const time of ['2026-01-01T00:00:00+20:00', '2026-01-01T00:00:00-23:59', `2026-01-01T00:00:00.${'1'.repeat(200)}Z`]) {
    for (const name of ['createdFrom', 'createdBefore']) {
      expect((await api.call('GET', `/v1/revocations?${name}=${encodeURIComponent(time)}`)).statusCode, `${name} ${time}`).toBe(200)
    }
    for (const name of ['bornBefore', 'bornAfter']) {
      expect((await api.post({ ...good, filter: { [name]: time }, validateOnly: true })).statusCode, `${name} ${time}`).toBe(200)
    }
  }
})

it('takes 10,000 ids of a kind', async () => {
  const ids = Array.from({ length: 10_000 }, (_, n) => `session-${n}`)
  const revocation = await api.accept({ filter: { sessionIds: ids }, exclude: { sessionIds: ids.slice(0, 5_000) } })
  expect((await api.call('GET', `/v1/revocations/${revocation}`)).json().metadata.filter.sessionIds).toEqual(ids)
})

it('is there only for those who say who they are', async () => {
  for (const [method, url] of [['POST', '/v1/revocations'], ['GET', '/v1/revocations'], ['GET', `/v1/revocations/${id}`], ['GET', `/v1/revocations/${id}/progress`], ['POST', `/v1/revocations/${id}:pause`]] as const) {
    expect((await api.app.inject({ method, url })).statusCode).toBe(401)
    const nobody = await api.bearer({ sub: 'nobody' })
    const answer = await api.call(method, url, { as: nobody, ...(url.endsWith('revocations') && method === 'POST' ? { body: good } : {}) })
    const reader = await api.bearer({ sub: 'reader', permissions: ['revocation.read', 'session.delete'] })
    if (method === 'POST') expect((await api.call(method, url, { as: reader, ...(url.endsWith('revocations') ? { body: { ...good, validateOnly: true } } : {}) })).statusCode).toBe(url.endsWith('pause') ? 404 : 403)
    // Whoever may read none may still list their own.
    expect([url, answer.statusCode]).toEqual([url, method === 'GET' && url === '/v1/revocations' ? 200 : 403])
  }
})
