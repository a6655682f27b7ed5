import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { CurfewError } from '../../src/errors.ts'
import { startApi } from './api.ts'
import type { TestApi } from './api.ts'

let api: TestApi
let instance: string
let o1: string
let reader: string
const good = { type: 'backchannel_logout', url: 'https://app.example/logout', clientId: 'app' }

beforeAll(async () => {
  api = await startApi()
  const permissions = ['receiver.read', 'receiver.write']
  instance = await api.bearer({ permissions })
  o1 = await api.bearer({ permissions, org: 'o1' })
  reader = await api.bearer({ permissions: ['receiver.read'] })
})
afterAll(() => api.close())

const call = (method: string, path: string, as: string, payload?: object) =>
  api.app.inject({ method: method as 'GET', url: `/v1/receivers${path}`, headers: { authorization: as }, ...(payload === undefined ? {} : { payload }) })
const body = (kind: ConstructorParameters<typeof CurfewError>[0]): string => JSON.stringify(new CurfewError(kind).body())

describe('PUT', () => {
  it('creates a receiver with defaults, makes sure of a signing key, and replaces it', async () => {
    const created = await call('PUT', '/app', instance, good)
    expect(created.statusCode).toBe(201)
    expect(created.json()).toMatchObject({
      ...good, id: 'app', issuer: api.issuer.url, resourceOwner: null, subject: 'sid', alg: 'RS256', events: [], maxConcurrency: 8, ratePerSecond: null, enabled: true,
      consecutiveFailures: 0, brokenUntil: null,
    })
    const jwks = await api.app.inject({ url: `/v1/issuers/${encodeURIComponent(api.issuer.url)}/jwks.json` })
    expect(jwks.json().keys).toMatchObject([{ kty: 'RSA', alg: 'RS256', use: 'sig' }])
    expect(JSON.stringify(jwks.json())).not.toMatch(/"(d|p|q|dp|dq|qi)":/)
    const replaced = await call('PUT', '/app', instance, { ...good, subject: 'both', enabled: false })
    expect([replaced.statusCode, replaced.json().subject, replaced.json().enabled]).toEqual([200, 'both', false])
    expect((await call('GET', '/app', instance)).json()).toEqual(replaced.json())
  })

  it.each([
    ['a webhook of one client', { type: 'webhook' }, /clientId/],
    ['an unknown type', { type: 'carrier_pigeon' }, /^type: must be "backchannel_logout" or "webhook"/],
    ['no type', { type: undefined }, /^type: /],
    ['no client', { clientId: undefined }, /^clientId: /],
    ['a client with a line break', { clientId: 'a\nb' }, /^clientId: /],
    ['an unknown field', { colour: 'red' }, /colour/],
    ['an algorithm without asymmetry', { alg: 'HS256' }, /^alg: /],
    ['too many at once', { maxConcurrency: 65 }, /^maxConcurrency: /],
    ['a rate of none', { ratePerSecond: 0 }, /^ratePerSecond: /],
    ['events', { events: ['session.terminated'] }, /^events: /],
    ['no URL', { url: 'nonsense' }, /^Invalid url: /],
    ['credentials in the URL', { url: 'https://a:b@app.example/' }, /^Invalid url: /],
    ['another scheme', { url: 'file:///etc/passwd' }, /^Invalid url: /],
    ['plain http', { url: 'http://app.example/' }, /^Invalid url: /],
    ['a loopback address', { url: 'https://127.0.0.1/' }, /^Invalid url: /],
    ['a metadata address', { url: 'http://169.254.169.254/latest' }, /^Invalid url: /],
  ])('refuses %s with 400 and a sentence', async (_, change, sentence) => {
    const answer = await call('PUT', '/bad', instance, { ...good, ...change })
    expect([answer.statusCode, answer.json().code]).toEqual([400, 3])
    expect(answer.json().message).toMatch(sentence)
    expect((await call('GET', '/bad', instance)).statusCode).toBe(404)
  })

  it.each(['a:b', '%00', 'x'.repeat(129), 'a%2Fb', '%20'])('refuses the id %s', async (id) => {
    expect((await call('PUT', `/${id}`, instance, good)).statusCode).toBe(400)
  })

  it('registers for no issuer that the caller does not speak for', async () => {
    for (const issuer of [api.stranger.url, 'https://nobody.example']) {
      const answer = await call('PUT', '/foreign-issuer', instance, { ...good, issuer })
      expect([answer.statusCode, answer.body]).toEqual([403, body('permission_denied')])
    }
    const { rows } = await api.database.sql.query('SELECT FROM signing_keys WHERE issuer <> $1', [api.issuer.url])
    expect(rows).toHaveLength(0)
  })
})

describe('reach', () => {
  beforeAll(async () => {
    await call('PUT', '/of-o1', o1, { ...good, resourceOwner: 'o1' })
    await call('PUT', '/of-o2', instance, { ...good, resourceOwner: 'o2' })
    await call('PUT', '/of-all', instance, good)
    const stranger = `Bearer ${await api.stranger.token({ permissions: ['receiver.write'] })}`
    await call('PUT', '/of-stranger', stranger, { ...good, resourceOwner: 'o1' })
  })

  it('G6: answers 404 in the same bytes for what is foreign and what is not there, on PUT and DELETE too', async () => {
    for (const id of ['of-o2', 'of-all', 'of-stranger']) {
      const answers = [
        await call('GET', `/${id}`, o1),
        await call('DELETE', `/${id}`, o1),
        await call('GET', `/${id}/deliveries`, o1),
        await call('PUT', `/${id}`, o1, { ...good, resourceOwner: 'o1' }),
        await call('GET', '/not-there', o1),
      ]
      for (const answer of answers) expect([answer.statusCode, answer.body]).toEqual([404, body('receiver_not_found')])
    }
    expect((await call('DELETE', '/of-stranger', instance)).statusCode).toBe(404)
    const { rows } = await api.database.sql.query(`SELECT id FROM receivers WHERE id IN ('of-o2', 'of-all', 'of-stranger') AND enabled`)
    expect(rows).toHaveLength(3)
  })

  it('takes the instance to register for all organizations, or for another', async () => {
    for (const change of [{}, { resourceOwner: null }, { resourceOwner: 'o2' }]) {
      const answer = await call('PUT', '/too-far', o1, { ...good, ...change })
      expect([answer.statusCode, answer.body]).toEqual([403, body('permission_denied')])
    }
  })

  it('lists what is within reach, page by page', async () => {
    const page = async (as: string, query: string) => (await call('GET', query, as)).json()
    expect((await page(o1, '')).receivers.map(({ id }: { id: string }) => id)).toEqual(['of-o1'])
    const seen: string[] = []
    let query = '?pageSize=1'
    for (;;) {
      const { receivers, nextPageToken } = await page(instance, query)
      seen.push(...receivers.map(({ id }: { id: string }) => id))
      if (nextPageToken === undefined) break
      query = `?pageSize=1&pageToken=${nextPageToken}`
    }
    expect(seen).toEqual(['app', 'of-all', 'of-o1', 'of-o2'])
  })

  it.each(['?pageSize=0', '?pageSize=1001', '?pageSize=x', '?pageToken=%00', '?pageToken=!!', '?pageSize=1&pageSize=2', '?enabled=false'])('refuses %s', async (query) => {
    expect((await call('GET', query, instance)).statusCode).toBe(400)
  })

  it('needs receiver.read to look and receiver.write to change', async () => {
    const none = await api.bearer({ permissions: ['session.delete'] })
    for (const [method, path, as] of [['GET', '', none], ['GET', '/app', none], ['GET', '/app/deliveries', none], ['DELETE', '/app', reader], ['DELETE', '/app', none]] as const) {
      const answer = await call(method, path, as)
      expect([answer.statusCode, answer.body]).toEqual([403, body('permission_denied')])
    }
    expect((await call('PUT', '/new', reader, good)).statusCode).toBe(403)
    expect((await call('GET', '/app', reader)).statusCode).toBe(200)
  })
})

describe('deliveries', () => {
  beforeAll(async () => {
    await call('PUT', '/told', instance, good)
    await api.database.sql.query(
      `INSERT INTO deliveries (receiver_id, session_id, client_id, sid, sub, issuer, state, attempts, moot_at, done_at, last_outcome, last_status, last_answer)
       SELECT 'told', 's' || n, 'app', 's' || n, 'u', $1, (CASE WHEN n % 2 = 0 THEN 'acknowledged' ELSE 'failed' END)::delivery_state, n, now(), now(), 'refused', 400, 'no "such" session'
       FROM generate_series(1, 5) n`, [api.issuer.url])
  })

  it('are listed newest first, by state and page by page', async () => {
    const all = (await call('GET', '/told/deliveries', instance)).json()
    expect(all.deliveries.map(({ sessionId }: { sessionId: string }) => sessionId)).toEqual(['s5', 's4', 's3', 's2', 's1'])
    expect(all.deliveries[0]).toMatchObject({ receiverId: 'told', state: 'failed', attempts: 5, lastStatus: 400, lastAnswer: 'no "such" session', dueDate: null })
    const first = (await call('GET', '/told/deliveries?state=failed&pageSize=2', instance)).json()
    expect(first.deliveries.map(({ sessionId }: { sessionId: string }) => sessionId)).toEqual(['s5', 's3'])
    const second = (await call('GET', `/told/deliveries?state=failed&pageSize=2&pageToken=${first.nextPageToken}`, instance)).json()
    expect(second.deliveries.map(({ sessionId }: { sessionId: string }) => sessionId)).toEqual(['s1'])
    expect(second).not.toHaveProperty('nextPageToken')
  })

  it.each(['?state=lost', '?pageToken=OTk5OTk5OTk5OTk5OTk5OTk5OQ', '?pageToken=YQ', '?stat=failed'])('refuse %s', async (query) => {
    expect((await call('GET', `/told/deliveries${query}`, instance)).statusCode).toBe(400)
  })

  it('go with their receiver', async () => {
    const answer = await call('DELETE', '/told', instance)
    expect([answer.statusCode, answer.body]).toEqual([204, ''])
    expect((await call('GET', '/told', instance)).statusCode).toBe(404)
    expect((await call('DELETE', '/told', instance)).statusCode).toBe(404)
  })
})

describe('JWKS', () => {
  const jwks = (issuer: string) => api.app.inject({ url: `/v1/issuers/${encodeURIComponent(issuer)}/jwks.json` })

  it('is public and may be cached', async () => {
    const answer = await jwks(api.issuer.url)
    expect([answer.statusCode, answer.headers['cache-control']]).toEqual([200, 'public, max-age=300'])
  })

  it('is empty for an issuer without keys, and 404 for one that is not ours', async () => {
    expect((await jwks(api.stranger.url)).statusCode).toBe(200)
    const unknown = await jwks('https://nobody.example')
    expect([unknown.statusCode, unknown.body]).toEqual([404, body('issuer_not_found')])
    expect(unknown.headers['cache-control']).toBe('no-store')
  })
})
