import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { CurfewError } from '../../src/errors.ts'
import { startApi } from './api.ts'
import type { TestApi } from './api.ts'

let api: TestApi
let instance: string
let o1: string
const good = { type: 'webhook', url: 'https://hooks.example/curfew' }

beforeAll(async () => {
  api = await startApi()
  const permissions = ['receiver.read', 'receiver.write']
  instance = await api.bearer({ permissions })
  o1 = await api.bearer({ permissions, org: 'o1' })
})
afterAll(() => api.close())

const call = (method: string, path: string, as: string, payload?: object) =>
  api.app.inject({ method: method as 'GET', url: `/v1/receivers${path}`, headers: { authorization: as }, ...(payload === undefined ? {} : { payload }) })
const body = (kind: ConstructorParameters<typeof CurfewError>[0]): string => JSON.stringify(new CurfewError(kind).body())

describe('a webhook', () => {
  it('shows its secret in the answer that creates it, and never again', async () => {
    const created = await call('PUT', '/hook', instance, good)
    expect(created.statusCode).toBe(201)
    const { secret } = created.json()
    expect(secret).toMatch(/^whsec_/)
    expect(created.json()).toMatchObject({
      ...good, issuer: api.issuer.url, clientId: null, resourceOwner: null, subject: null, alg: null, events: ['session.terminated', 'revocation.completed'], enabled: true, goneDate: null,
    })
    const answers = [
      await call('PUT', '/hook', instance, { ...good, maxConcurrency: 2 }), await call('GET', '/hook', instance), await call('GET', '', instance),
    ]
    expect(answers.map(({ statusCode }) => statusCode)).toEqual([200, 200, 200])
    for (const { body: text } of answers) expect(text).not.toMatch(/secret|whsec/)
    const { rows } = await api.database.sql.query<{ text: string }>('SELECT to_jsonb(r)::text AS text FROM receivers r')
    expect(rows.map(({ text }) => text).join()).not.toContain(secret.slice('whsec_'.length))
    expect(api.logged.join()).not.toContain(secret.slice('whsec_'.length))
  })

  it('makes no signing key: it is signed with its own secret', async () => {
    await call('PUT', '/keyless', instance, good)
    expect((await api.database.sql.query('SELECT FROM signing_keys')).rowCount).toBe(0)
  })

  it.each([
    ['an event that is not sent', { events: ['revocation.begun'] }, /^events/],
    ['no event', { events: [] }, /^events/],
    ['an event twice', { events: ['session.terminated', 'session.terminated'] }, /^events/],
    ['a subject', { subject: 'sid' }, /subject/],
    ['an algorithm', { alg: 'RS256' }, /alg/],
    ['a secret of its own', { secret: 'whsec_AAAA' }, /secret/],
    ['a loopback address', { url: 'https://127.0.0.1/' }, /^Invalid url: /],
  ])('refuses %s with 400 and a sentence', async (_, change, sentence) => {
    const answer = await call('PUT', '/bad', instance, { ...good, ...change })
    expect([answer.statusCode, answer.json().code]).toEqual([400, 3])
    expect(answer.json().message).toMatch(sentence)
  })

  it('never becomes a receiver of another type, nor the other way round', async () => {
    await call('PUT', '/typed', instance, good)
    const answer = await call('PUT', '/typed', instance, { type: 'backchannel_logout', url: good.url, clientId: 'app' })
    expect([answer.statusCode, answer.json().message]).toEqual([400, 'type: this receiver is a webhook and stays one; delete it first'])
    await call('PUT', '/relying', instance, { type: 'backchannel_logout', url: good.url, clientId: 'app' })
    expect((await call('PUT', '/relying', instance, good)).statusCode).toBe(400)
  })

  it('of an organization is registered within it alone', async () => {
    expect((await call('PUT', '/mine', o1, { ...good, resourceOwner: 'o1' })).statusCode).toBe(201)
    for (const resourceOwner of ['o2', null]) expect((await call('PUT', '/theirs', o1, { ...good, resourceOwner })).statusCode).toBe(403)
  })
})

describe('POST …:rotateSecret', () => {
  it('shows a new secret once, and until when the former signs too', async () => {
    await call('PUT', '/rotated', instance, good)
    const first = await call('POST', '/rotated:rotateSecret', instance)
    const { secret, previousSecretExpirationDate } = first.json()
    expect(secret).toMatch(/^whsec_/)
    expect(Math.abs(Date.parse(previousSecretExpirationDate) - Date.now() - 86_400_000)).toBeLessThan(60_000)
    const second = await call('POST', '/rotated:rotateSecret', instance, { overlapSeconds: 0 })
    expect(second.json().secret).not.toBe(secret)
    expect(Date.parse(second.json().previousSecretExpirationDate)).toBeLessThanOrEqual(Date.now() + 60_000)
  })

  it.each([{ overlapSeconds: -1 }, { overlapSeconds: 604_801 }, { overlapSeconds: '1' }, { colour: 'red' }])('refuses %j', async (payload) => {
    await call('PUT', '/rotated', instance, good)
    expect((await call('POST', '/rotated:rotateSecret', instance, payload)).statusCode).toBe(400)
  })

  it('G6: is for webhooks within reach; whatever lies beyond is 404 in the same bytes', async () => {
    await call('PUT', '/rotated', instance, good)
    await call('PUT', '/plain', o1, { type: 'backchannel_logout', url: good.url, clientId: 'app', resourceOwner: 'o1' })
    const plain = await call('POST', '/plain:rotateSecret', o1)
    expect([plain.statusCode, plain.json().message]).toEqual([400, 'Only webhooks have a secret'])
    for (const id of ['rotated', 'not-there']) {
      const answer = await call('POST', `/${id}:rotateSecret`, o1)
      expect([answer.statusCode, answer.body]).toEqual([404, body('receiver_not_found')])
    }
    const reader = await api.bearer({ permissions: ['receiver.read'] })
    expect((await call('POST', '/rotated:rotateSecret', reader)).statusCode).toBe(403)
  })
})

it('the OpenAPI document shows what webhooks are sent', async () => {
  const { webhooks } = (await api.app.inject({ url: '/openapi.json' })).json()
  const { schema, example } = webhooks['session.terminated'].post.requestBody.content['application/json']
  expect(schema.properties.data.required).toEqual(['sessionId', 'issuer', 'userId', 'resourceOwner', 'mode', 'sequence', 'terminatedAt'])
  expect(Object.keys(example.data)).toEqual(Object.keys(schema.properties.data.properties))
})
