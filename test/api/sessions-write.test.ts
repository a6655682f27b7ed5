/** Sessions in (DESIGN §6), over HTTP with real tokens and a real database. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { CurfewError } from '../../src/errors.ts'
import { eventsOf, rowOf } from '../harness/registrations.ts'
import { MAX_LIFETIME_SECONDS, startSessionApi } from './session-api.ts'
import type { SessionApi } from './session-api.ts'

let api: SessionApi
let registrar: string
let admin: string

const minimal = { userId: 'u1', resourceOwner: 'o1' }
const put = (id: string, body: unknown = minimal, as = registrar) => api.call('PUT', `/v1/sessions/${encodeURIComponent(id)}`, { as, body })
const patch = (id: string, body: unknown, as = registrar) => api.call('PATCH', `/v1/sessions/${encodeURIComponent(id)}`, { as, body })
const batch = (sessions: unknown, as = registrar) => api.call('POST', '/v1/sessions:batchCreate', { as, body: { sessions } })
const join = (id: string, clientId: string, body?: unknown, as = registrar) =>
  api.call('PUT', `/v1/sessions/${id}/clients/${encodeURIComponent(clientId)}`, { as, body })
const withToken = (id: string, sessionToken: string) => api.call('DELETE', `/v2/sessions/${id}`, { as: registrar, body: { sessionToken } })
const bytes = (kind: ConstructorParameters<typeof CurfewError>[0]): string => JSON.stringify(new CurfewError(kind).body())

beforeAll(async () => {
  api = await startSessionApi()
  registrar = await api.bearer({ sub: 'registrar', permissions: ['session.write'] })
  admin = await api.bearer({ sub: 'admin', permissions: ['session.delete'] })
})
afterAll(() => api.close())

describe('PUT /v1/sessions/{id}', () => {
  it('answers 201 with details and a session token that ends the session', async () => {
    const answer = await put('new')
    expect(answer.statusCode).toBe(201)
    expect(answer.json()).toEqual({
      details: { sequence: '1', changeDate: expect.stringMatching(/\.\d{3}Z$/), resourceOwner: 'o1' },
      sessionToken: expect.stringMatching(/^[A-Za-z0-9_-]{43}$/),
    })
    expect(await rowOf(api.database.sql, 'new')).toMatchObject({ issuer: api.issuer.url, creator_subject: 'registrar' })
    expect((await withToken('new', answer.json().sessionToken)).json()).toMatchObject({ details: { sequence: '2' } })
  })

  it('answers 200 with a new token to the identical body, and the old token fails', async () => {
    const body = { ...minimal, clients: [{ clientId: 'a' }, { clientId: 'b', sid: 's' }], metadata: { x: 'MQ', y: 'Mg==' }, cacheKeys: ['sess:1', 'cart:2'] }
    const first = await put('again', body)
    // The same in other words: defaults spelt out, sets in another order, base64 with padding.
    const second = await put('again', {
      cacheKeys: ['cart:2', 'sess:1'],
      metadata: { y: 'Mg', x: 'MQ==' },
      clients: [{ clientId: 'b', sid: 's', sub: 'u1' }, { clientId: 'a', sid: 'again' }],
      issuer: api.issuer.url,
      ...minimal,
    })
    expect([first.statusCode, second.statusCode]).toEqual([201, 200])
    expect(second.json().details.sequence).toBe('2')
    const stale = await withToken('again', first.json().sessionToken)
    expect([stale.statusCode, stale.body]).toEqual([403, bytes('session_token_invalid')])
    expect((await withToken('again', second.json().sessionToken)).statusCode).toBe(200)
  })

  it.each<[string, object]>([
    ['user', { userId: 'u2' }],
    ['organization', { resourceOwner: 'o2' }],
    ['participant', { clients: [{ clientId: 'a' }] }],
    ['user agent', { userAgent: { ip: '10.0.0.1' } }],
    ['metadata', { metadata: { a: 'MQ==' } }],
    ['cache key', { cacheKeys: ['sess:1'] }],
    ['creation date', { creationDate: '2026-01-01T00:00:00Z' }],
    ['sign-in', { authTime: '2026-01-01T00:00:00Z' }],
    ['lifetime', { lifetime: '100s' }],
  ])('answers 409 to a body with another %s', async (name, change) => {
    await put(`other ${name}`)
    const answer = await put(`other ${name}`, { ...minimal, ...change })
    expect([answer.statusCode, answer.body]).toEqual([409, bytes('session_exists')])
  })

  it('G2: answers 409 once the session is terminated, whatever the body', async () => {
    await put('ended')
    await api.delete('ended', { as: admin })
    for (const body of [minimal, { ...minimal, userId: 'u2' }]) {
      const answer = await put('ended', body)
      expect([answer.statusCode, answer.body]).toEqual([409, bytes('session_terminated')])
    }
  })

  it('makes one session of 50 at once, and one of the 50 tokens is good', async () => {
    const answers = await Promise.all(Array.from({ length: 50 }, () => put('crowd')))
    expect(answers.map(({ statusCode }) => String(statusCode)).sort()).toEqual([...Array<string>(49).fill('200'), '201'])
    expect((await eventsOf(api.database.sql, 'crowd')).filter((type) => type === 'session.added')).toHaveLength(1)
    const last = answers.find((answer) => answer.json().details.sequence === '50')
    const refused = answers.filter((answer) => answer !== last)
    for (const answer of refused) expect((await withToken('crowd', answer.json().sessionToken)).statusCode).toBe(403)
    expect((await withToken('crowd', last?.json().sessionToken)).statusCode).toBe(200)
  })

  it('takes ids of 200 characters of any script', async () => {
    expect((await put('é/ 😀'.repeat(40))).statusCode).toBe(201)
  })

  it('refuses an issuer that the caller does not speak for, also where the id is free', async () => {
    const answer = await put('foreign', { ...minimal, issuer: api.stranger.url })
    expect([answer.statusCode, answer.body]).toEqual([403, bytes('permission_denied')])
  })

  it('only says that an id is taken to a registrar of another issuer', async () => {
    await put('global')
    const stranger = `Bearer ${await api.stranger.token({ sub: 'registrar', permissions: ['session.write'] })}`
    expect((await put('global', minimal, stranger)).body).toBe(bytes('session_exists'))
  })

  it('G6: needs session.write for the instance, and says so before it looks at anything', async () => {
    const callers = [{ permissions: ['session.write'], org: 'o1' }, { permissions: ['session.delete', 'session.read'] }, {}]
    for (const claims of callers) {
      const as = await api.bearer({ sub: 'x', ...claims })
      for (const answer of [await put('new', '{', as), await batch('x', as), await patch('nowhere', {}, as), await join('nowhere', 'c', {}, as)]) {
        expect([answer.statusCode, answer.body]).toEqual([403, bytes('permission_denied')])
      }
    }
    expect((await api.call('PUT', '/v1/sessions/x', { body: minimal })).statusCode).toBe(401)
  })

  it('lives as long as asked, at most the longest lifetime', async () => {
    const { details } = (await put('lives', { ...minimal, lifetime: '1.5s' })).json()
    expect(await rowOf(api.database.sql, 'lives')).toMatchObject({ expires_at: new Date(Date.parse(details.changeDate) + 1_500) })
    expect((await put('longest', { ...minimal, lifetime: `${MAX_LIFETIME_SECONDS}s` })).statusCode).toBe(201)
  })

  const bad: [string, object | string, string][] = [
    ['no body', '', ''],
    ['an array', '[]', ''],
    ['no user', { resourceOwner: 'o1' }, 'userId'],
    ['an empty user', { ...minimal, userId: '' }, 'userId'],
    ['a user of 256 characters', { ...minimal, userId: 'x'.repeat(256) }, 'userId'],
    ['a NUL in a user', { ...minimal, userId: 'a\u0000b' }, 'userId'],
    ['half a surrogate pair in a user', '{"userId":"\\ud800","resourceOwner":"o1"}', 'userId'],
    ['an organization of 201 characters', { ...minimal, resourceOwner: 'x'.repeat(201) }, 'resourceOwner'],
    ['a misspelt field', { ...minimal, cachekeys: [] }, 'cachekeys'],
    ['white space in an issuer', { ...minimal, issuer: 'https://a b' }, 'issuer'],
    ['a number for a user', { ...minimal, userId: 1 }, 'userId'],
    ['101 clients', { ...minimal, clients: Array.from({ length: 101 }, (_, n) => ({ clientId: `c${n}` })) }, 'clients'],
    ['a client twice', { ...minimal, clients: [{ clientId: 'a' }, { clientId: 'a' }] }, 'clients'],
    ['a cache key of another prefix', { ...minimal, cacheKeys: ['other:1'] }, 'cacheKeys[0]'],
    ['33 cache keys', { ...minimal, cacheKeys: Array<string>(33).fill('sess:1') }, 'cacheKeys'],
    ['a cache key of 513 characters', { ...minimal, cacheKeys: [`sess:${'x'.repeat(508)}`] }, 'cacheKeys[0]'],
    ['65 metadata keys', { ...minimal, metadata: Object.fromEntries(Array.from({ length: 65 }, (_, n) => [`k${n}`, 'MQ=='])) }, 'metadata'],
    ['metadata of more than 16 KiB', { ...minimal, metadata: { a: 'x'.repeat(16_384) } }, 'metadata'],
    ['metadata that is not base64', { ...minimal, metadata: { a: 'no base64!' } }, 'metadata.a'],
    ['metadata of an impossible length', { ...minimal, metadata: { a: 'xxxxx' } }, 'metadata.a'],
    ['a control character in a metadata key', { ...minimal, metadata: { 'a\nb': 'MQ==' } }, 'metadata'],
    ['something else for an IP', { ...minimal, userAgent: { ip: '10.0.0.1/8' } }, 'userAgent.ip'],
    ['a zone in an IP', { ...minimal, userAgent: { ip: 'fe80::1%eth0' } }, 'userAgent.ip'],
    ['both expiries', { ...minimal, lifetime: '5s', expirationDate: '2027-01-01T00:00:00Z' }, 'lifetime'],
    ['a lifetime without unit', { ...minimal, lifetime: '18000' }, 'lifetime'],
    ['a negative lifetime', { ...minimal, lifetime: '-5s' }, 'lifetime'],
    ['no lifetime at all', { ...minimal, lifetime: '0s' }, 'lifetime'],
    ['too long a lifetime', { ...minimal, lifetime: `${MAX_LIFETIME_SECONDS + 1}s` }, 'lifetime'],
    ['an absurd lifetime', { ...minimal, lifetime: '999999999999s' }, 'lifetime'],
    ['an expiry in the past', { ...minimal, expirationDate: '2020-01-01T00:00:00Z' }, 'expirationDate'],
    ['an expiry too far away', { ...minimal, expirationDate: '9999-12-30T00:00:00Z' }, 'expirationDate'],
    ['a date that does not exist', { ...minimal, creationDate: '2024-02-30T00:00:00Z' }, 'creationDate'],
    ['a date without offset', { ...minimal, creationDate: '2024-02-03T00:00:00' }, 'creationDate'],
    ['a date before 1970', { ...minimal, authTime: '0001-01-01T00:00:00Z' }, 'authTime'],
    ['a creation in the future', { ...minimal, creationDate: '9999-01-01T00:00:00Z' }, 'creationDate'],
    ['a sign-in in the future', { ...minimal, authTime: '2999-01-01T00:00:00Z' }, 'authTime'],
  ]
  it.each(bad)('G12: refuses %s with 400 and writes nothing', async (_name, body, field) => {
    const answer = await put('bad', body)
    expect([answer.statusCode, answer.json()]).toEqual([400, { code: 3, message: expect.stringContaining(field) }])
    expect(await rowOf(api.database.sql, 'bad')).toBeUndefined()
  })

  it('G12: refuses a bad id', async () => {
    for (const id of ['x'.repeat(201), 'a\nb', 'a\u0000']) expect((await put(id)).statusCode).toBe(400)
  })
})

describe('POST /v1/sessions:batchCreate', () => {
  it('registers all, in order, with tokens that are good', async () => {
    const answer = await batch([{ id: 'b2', ...minimal }, { id: 'b1', ...minimal, userId: 'u2' }])
    expect(answer.statusCode).toBe(201)
    expect(answer.json().sessions).toMatchObject([{ id: 'b2', details: { sequence: '1' } }, { id: 'b1', details: { sequence: '1' } }])
    expect((await withToken('b1', answer.json().sessions[1].sessionToken)).statusCode).toBe(200)
  })

  it('answers 200 with new tokens when it is repeated', async () => {
    const items = [{ id: 'r1', ...minimal }, { id: 'r2', ...minimal }]
    await batch(items)
    const answer = await batch(items)
    expect([answer.statusCode, answer.json().sessions[0].details.sequence]).toEqual([200, '2'])
  })

  it('takes a thousand', async () => {
    const answer = await batch(Array.from({ length: 1_000 }, (_, n) => ({ id: `thousand-${n}`, ...minimal, clients: [{ clientId: 'c' }] })))
    expect([answer.statusCode, answer.json().sessions.length]).toEqual([201, 1_000])
  })

  it('G12: names the index of the first bad one, and writes nothing', async () => {
    await put('taken')
    await put('over')
    await api.delete('over', { as: admin })
    const good = { id: 'good', ...minimal }
    const items: [object, number, string][] = [
      [{ id: 'a', resourceOwner: 'o1' }, 400, 'sessions[1].userId: '],
      [{ id: '', ...minimal }, 400, 'sessions[1].id: must have 1 to 200 characters'],
      [{ id: 'a', ...minimal, metadata: { x: '!' } }, 400, 'sessions[1].metadata.x: '],
      [good, 400, 'sessions[1]: id'],
      [{ id: 'a', ...minimal, clients: [{ clientId: 'c' }, { clientId: 'c' }] }, 400, 'sessions[1]: clients'],
      [{ id: 'a', ...minimal, creationDate: '2999-01-01T00:00:00Z' }, 400, 'sessions[1]: creationDate'],
      [{ id: 'a', ...minimal, issuer: api.stranger.url }, 403, 'sessions[1]: No matching permissions found (AUTH-AWfge)'],
      [{ id: 'taken', ...minimal, userId: 'u2' }, 409, 'sessions[1]: Session already exists'],
      [{ id: 'over', ...minimal }, 409, 'sessions[1]: Session is terminated (COMMAND-Hewfq)'],
    ]
    for (const [item, status, says] of items) {
      const answer = await batch([good, item])
      expect([answer.statusCode, answer.json().message]).toEqual([status, expect.stringContaining(says)])
    }
    for (const wrong of [[], Array.from({ length: 1_001 }, (_, n) => ({ id: `m${n}`, ...minimal })), 'x', null]) {
      expect((await batch(wrong)).statusCode).toBe(400)
    }
    expect(await rowOf(api.database.sql, 'good')).toBeUndefined()
    expect(await eventsOf(api.database.sql, 'taken')).toEqual(['session.added'])
  })
})

describe('PATCH /v1/sessions/{id}', () => {
  it('changes metadata, user agent and expiry, and rotates the token', async () => {
    const first = await put('patched', { ...minimal, metadata: { a: 'MQ==', b: 'Mg==' } })
    const answer = await patch('patched', { metadata: { a: '', c: 'Mw' }, userAgent: { description: 'new' }, lifetime: '60s' })
    expect([answer.statusCode, answer.json().details.sequence]).toEqual([200, '2'])
    expect(await rowOf(api.database.sql, 'patched')).toMatchObject({ metadata: { b: 'Mg==', c: 'Mw==' }, user_agent: { description: 'new' } })
    expect((await withToken('patched', first.json().sessionToken)).statusCode).toBe(403)
    expect((await withToken('patched', answer.json().sessionToken)).statusCode).toBe(200)
  })

  it('answers 404 to an unknown session and to one of another issuer, in the same bytes', async () => {
    await put('mine')
    const stranger = `Bearer ${await api.stranger.token({ sub: 'registrar', permissions: ['session.write'] })}`
    const answers = [await patch('nowhere', {}), await patch('mine', {}, stranger)]
    for (const answer of answers) expect([answer.statusCode, answer.body]).toEqual([404, bytes('session_not_found')])
  })

  it('answers 409 to a terminated and to an expired session', async () => {
    await put('patch-ended')
    await api.delete('patch-ended', { as: admin })
    expect((await patch('patch-ended', {})).body).toBe(bytes('session_terminated'))
    await put('patch-expired')
    await api.database.sql.query(`UPDATE sessions SET expires_at = now() WHERE id = 'patch-expired'`)
    const answer = await patch('patch-expired', { lifetime: '60s' })
    expect([answer.statusCode, answer.body]).toEqual([409, bytes('session_expired')])
  })

  it('G12: refuses what cannot be changed', async () => {
    await put('fixed')
    for (const body of ['', '[]', { userId: 'u2' }, { resourceOwner: 'o2' }, { lifetime: '0s' }, { lifetime: '1s', expirationDate: '2027-01-01T00:00:00Z' }, { metadata: null }]) {
      expect((await patch('fixed', body)).statusCode).toBe(400)
    }
    expect(await eventsOf(api.database.sql, 'fixed')).toEqual(['session.added'])
  })
})

it('G10: writes no session token to the log', async () => {
  const { sessionToken } = (await put('secret')).json()
  await patch('secret', { metadata: { a: '!' } })
  expect(api.logged.join('\n')).not.toContain(sessionToken)
})

it('stands in the OpenAPI document, with its bodies and errors', async () => {
  const { paths } = (await api.call('GET', '/openapi.json')).json()
  const register = paths['/v1/sessions/{sessionId}'].put
  expect(Object.keys(register.requestBody.content['application/json'].schema.properties)).toContain('cacheKeys')
  expect(Object.keys(register.responses)).toEqual(expect.arrayContaining(['200', '201', '400', '401', '403', '409']))
  expect(paths['/v1/sessions/{sessionId}'].patch).toBeDefined()
  expect(paths['/v1/sessions/{sessionId}/clients/{clientId}'].put).toBeDefined()
  expect(paths['/v1/sessions:batchCreate'].post.requestBody.content['application/json'].schema.properties.sessions.maxItems).toBe(1_000)
  expect(paths['/v2/sessions/search'].post.requestBody.content['application/json'].schema.properties).toHaveProperty('queries')
  expect(paths['/v2beta/sessions/{sessionId}'].get.deprecated).toBe(true)
})
