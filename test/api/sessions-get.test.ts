/** `GET /v2/sessions/{id}`: who may read, and what they see (DESIGN §6, zitadel-wire §3). */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { CurfewError } from '../../src/errors.ts'
import { startSessionApi } from './session-api.ts'
import type { SessionApi } from './session-api.ts'

let api: SessionApi
let registrar: string
let admin: string
const as: Record<string, string> = {}
const notFound = JSON.stringify(new CurfewError('session_not_found').body())

const put = (id: string, body: object = {}) =>
  api.call('PUT', `/v1/sessions/${encodeURIComponent(id)}`, { as: registrar, body: { userId: 'anna', resourceOwner: 'o1', ...body } })
const get = (id: string, caller: string | undefined, query = '', version = 'v2') =>
  api.call('GET', `/${version}/sessions/${encodeURIComponent(id)}${query}`, caller === undefined ? {} : { as: caller })

beforeAll(async () => {
  api = await startSessionApi()
  registrar = await api.bearer({ sub: 'registrar', permissions: ['session.write'] })
  admin = await api.bearer({ sub: 'admin', permissions: ['session.delete'] })
  as['instance'] = await api.bearer({ sub: 'reader', permissions: ['session.read'] })
  as['o1'] = await api.bearer({ sub: 'reader', permissions: ['session.read'], org: 'o1' })
  as['o2'] = await api.bearer({ sub: 'reader', permissions: ['session.read'], org: 'o2' })
  as['anna'] = await api.bearer({ sub: 'anna' })
  as['bert'] = await api.bearer({ sub: 'bert' })
  as['deleter'] = admin
  as['registrar'] = registrar
  as['stranger anna'] = `Bearer ${await api.stranger.token({ sub: 'anna' })}`
  as['stranger instance'] = `Bearer ${await api.stranger.token({ sub: 'x', permissions: ['session.read'] })}`
})
afterAll(() => api.close())

describe('a session as it is read', () => {
  it('has all that we know of it, under the names of ZITADEL', async () => {
    const { details } = (
      await put('full', {
        userAgent: { fingerprintId: 'fp', ip: '2001:DB8::1', description: 'Firefox' },
        metadata: { key: 'dmFsdWU' },
        creationDate: '2026-01-02T04:04:05.6789+01:00',
        authTime: '2026-01-02T03:04:00Z',
        lifetime: '18000s',
      })
    ).json()
    const answer = await get('full', as['instance'])
    expect(answer.statusCode).toBe(200)
    expect(answer.headers).toMatchObject({ 'content-type': expect.stringMatching(/^application\/json/), 'cache-control': 'no-store' })
    expect(answer.json()).toEqual({
      session: {
        id: 'full',
        creationDate: '2026-01-02T03:04:05.678Z',
        changeDate: details.changeDate,
        sequence: '1',
        factors: { user: { verifiedAt: '2026-01-02T03:04:00.000Z', id: 'anna', organizationId: 'o1' } },
        metadata: { key: 'dmFsdWU=' },
        userAgent: { fingerprintId: 'fp', ip: '2001:db8::1', description: 'Firefox' },
        expirationDate: new Date(Date.parse(details.changeDate) + 18_000_000).toISOString(),
      },
    })
  })

  it('leaves out what is empty, as protojson does', async () => {
    await put('bare', { userAgent: { ip: '10.0.0.1' } })
    await put('barest')
    expect((await get('bare', as['instance'])).json().session).toMatchObject({ userAgent: { ip: '10.0.0.1' } })
    expect(Object.keys((await get('bare', as['instance'])).json().session.userAgent)).toEqual(['ip'])
    expect(Object.keys((await get('barest', as['instance'])).json().session)).toEqual(['id', 'creationDate', 'changeDate', 'sequence', 'factors', 'expirationDate'])
  })

  it('is the same under /v2beta', async () => {
    await put('beta')
    expect((await get('beta', as['anna'], '', 'v2beta')).body).toBe((await get('beta', as['anna'])).body)
  })

  it('shows every write at once', async () => {
    await put('fresh')
    await api.call('PATCH', '/v1/sessions/fresh', { as: registrar, body: { metadata: { a: 'MQ==' } } })
    expect((await get('fresh', as['anna'])).json().session).toMatchObject({ sequence: '2', metadata: { a: 'MQ==' } })
    await api.call('PUT', '/v1/sessions/fresh/clients/c', { as: registrar })
    expect((await get('fresh', as['anna'])).json().session.sequence).toBe('3')
  })

  it('is still there when it has expired', async () => {
    await put('expired')
    await api.database.sql.query(`UPDATE sessions SET expires_at = now() - interval '1 day' WHERE id = 'expired'`)
    expect((await get('expired', as['anna'])).statusCode).toBe(200)
  })
})

describe('who may read', () => {
  it.each(['instance', 'o1', 'anna'])('%s may', async (caller) => {
    await put('readable')
    expect((await get('readable', as[caller])).statusCode).toBe(200)
  })

  it.each(['o2', 'bert', 'deleter', 'registrar', 'stranger anna', 'stranger instance'])('G6: to %s it does not exist, in the same bytes as one that is not there', async (caller) => {
    await put('hidden')
    for (const id of ['hidden', 'nowhere']) {
      const answer = await get(id, as[caller])
      expect([answer.statusCode, answer.body]).toEqual([404, notFound])
    }
  })

  it('whoever shows its session token may, and only the one that is good now', async () => {
    const first = (await put('shown')).json().sessionToken
    expect((await get('shown', as['bert'], `?sessionToken=${first}`)).statusCode).toBe(200)
    expect((await get('shown', as['bert'], `?session_token=${first}`)).statusCode).toBe(200)
    const second = (await put('shown')).json().sessionToken
    expect((await get('shown', as['bert'], `?sessionToken=${second}`)).statusCode).toBe(200)
    const other = (await put('other')).json().sessionToken
    for (const token of [first, other, 'garbage', '']) {
      const answer = await get('shown', as['bert'], `?sessionToken=${token}`)
      expect([answer.statusCode, answer.body]).toEqual([404, notFound])
    }
    expect((await get('shown', as['stranger anna'], `?sessionToken=${second}`)).body).toBe(notFound)
    expect((await get('nowhere', as['bert'], `?sessionToken=${second}`)).body).toBe(notFound)
  })

  it('a wrong token takes nothing away from who may read anyway', async () => {
    await put('wrong')
    expect((await get('wrong', as['anna'], '?sessionToken=garbage')).statusCode).toBe(200)
  })

  it('must say who they are', async () => {
    expect((await get('readable', undefined)).statusCode).toBe(401)
  })

  it('G12: gets 400 for a bad id and a bad token', async () => {
    expect((await get('x'.repeat(201), as['anna'])).statusCode).toBe(400)
    expect((await get('readable', as['anna'], `?sessionToken=${'x'.repeat(501)}`)).statusCode).toBe(400)
    expect((await get('readable', as['anna'], '?sessionToken=a&sessionToken=b')).statusCode).toBe(400)
  })
})

describe('after the termination', () => {
  it('G2: nobody finds it, from the moment the 200 was sent, and its token finds nothing', async () => {
    const { sessionToken } = (await put('gone')).json()
    expect((await api.delete('gone', { as: admin })).statusCode).toBe(200)
    const answers = [await get('gone', as['instance']), await get('gone', as['anna']), await get('gone', as['bert'], `?sessionToken=${sessionToken}`)]
    for (const answer of answers) expect([answer.statusCode, answer.body]).toEqual([404, notFound])
  })
})

it('G10: a session token in the query is not logged', async () => {
  const { sessionToken } = (await put('query')).json()
  await get('query', as['bert'], `?sessionToken=${sessionToken}&sessionToken=${sessionToken}`)
  expect(api.logged.join('\n')).not.toContain(sessionToken)
})
