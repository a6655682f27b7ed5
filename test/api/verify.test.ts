import { decodeJwt } from 'jose'
import type { JWK } from 'jose'
import { Webhook } from 'standardwebhooks'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { CurfewError } from '../../src/errors.ts'
import { answer, hang, startReceiver } from '../harness/receiver.ts'
import type { TestReceiver } from '../harness/receiver.ts'
import { startApi } from './api.ts'
import type { TestApi } from './api.ts'

let api: TestApi
let instance: string
let o1: string
let stranger: string
let receiver: TestReceiver
let count = 0

beforeAll(async () => {
  api = await startApi({ allowPrivateReceivers: ['127.0.0.0/8'] })
  const permissions = ['receiver.read', 'receiver.write']
  instance = await api.bearer({ permissions })
  o1 = await api.bearer({ permissions, org: 'o1' })
  stranger = `Bearer ${await api.stranger.token({ permissions })}`
})
afterAll(() => api.close())
beforeEach(async () => { receiver = await startReceiver() })
afterEach(() => receiver.close())

const call = (method: 'PUT' | 'POST', path: string, as: string, payload?: object) =>
  api.app.inject({ method, url: `/v1/receivers/${path}`, headers: { authorization: as }, ...(payload === undefined ? {} : { payload }) })
const body = (kind: ConstructorParameters<typeof CurfewError>[0]): string => JSON.stringify(new CurfewError(kind).body())
/** Registers a receiver of its own, so that no test meets another's pause. */
const put = async (change: object = {}, as = instance) => {
  const id = `v${(count += 1)}`
  const made = await call('PUT', id, as, { type: 'backchannel_logout', url: receiver.url, clientId: 'app', ...change })
  expect(made.statusCode).toBe(201)
  return { id, secret: made.json().secret as string }
}
const verify = async (id: string, as = instance) => (await call('POST', `${id}:verify`, as)).json()
const publish = async (issuer = api.issuer) => {
  const { keys } = (await api.app.inject({ url: `/v1/issuers/${encodeURIComponent(issuer.url)}/jwks.json` })).json()
  for (const key of keys as JWK[]) issuer.addPublicKey(key)
}

describe('POST …:verify', () => {
  it('sends a real logout token of a session that cannot exist, and records nothing', async () => {
    const { id } = await put({ subject: 'both' })
    await publish()
    const seen = await verify(id)
    expect(seen).toEqual({ outcome: 'delivered', status: 200, answer: null, durationMs: expect.any(Number) as number, problems: [] })
    const { iss, aud, sid, sub } = decodeJwt(receiver.tokens()[0] ?? '')
    expect({ iss, aud }).toEqual({ iss: api.issuer.url, aud: 'app' })
    for (const name of [sid, sub]) expect(name).toMatch(/^curfew-verify-[0-9a-f]{32}$/)
    const { rows } = await api.database.sql.query('SELECT last_success_at, (SELECT count(*)::int FROM deliveries) AS deliveries FROM receivers WHERE id = $1', [id])
    expect(rows).toEqual([{ last_success_at: null, deliveries: 0 }])
  })

  it('sends a webhook that its receiver can verify', async () => {
    const { id, secret } = await put({ type: 'webhook', clientId: undefined })
    expect(await verify(id)).toMatchObject({ outcome: 'delivered', problems: [] })
    const [request] = receiver.requests
    const event = new Webhook(secret).verify(request?.body ?? '', request?.headers as Record<string, string>)
    expect(event).toMatchObject({ type: 'session.terminated', data: { sessionId: expect.stringMatching(/^curfew-verify-/) as string, issuer: api.issuer.url } })
  })

  it('shows what the receiver answers: cut, cleaned, and in words what is wrong', async () => {
    const { id } = await put()
    receiver.always(answer(400, { body: `{"error":"\u0000\u001b[31mno\r\n"}${'x'.repeat(5_000)}` }))
    const seen = await verify(id)
    expect(seen).toMatchObject({ outcome: 'rejected', status: 400, problems: ['It refused the message; its answer may say why.'] })
    expect(seen.answer).toMatch(/^\{"error":" \[31mno "\}x+$/)
    expect(seen.answer).toHaveLength(1_024)
  })

  it.each([
    ['a redirect', answer(302, { headers: { location: 'http://127.0.0.1:1/' } }), 'redirected', /redirect/],
    ['no answer', hang, 'timeout', /in time/],
    ['a failure', answer(500), 'server_error', /failed/],
  ])('says so of %s', async (_, answering, outcome, problem) => {
    const { id } = await put()
    receiver.always(answering)
    expect(await verify(id)).toMatchObject({ outcome, problems: [expect.stringMatching(problem) as string] })
  })

  it('says that the address may not be told', async () => {
    const { id } = await put()
    await api.database.sql.query(`UPDATE receivers SET url = 'https://10.0.0.1/' WHERE id = $1`, [id])
    expect(await verify(id)).toMatchObject({ outcome: 'address_refused', status: null, problems: [expect.stringMatching(/ALLOW_PRIVATE_RECEIVERS/) as string] })
  })

  it('says that the receiver is switched off, or left alone', async () => {
    const { id } = await put({ enabled: false })
    await api.database.sql.query(`UPDATE receivers SET broken_until = now() + interval '1 min' WHERE id = $1`, [id])
    expect((await verify(id)).problems).toEqual([expect.stringMatching(/switched off/), expect.stringMatching(/left alone until/)])
  })

  describe('the issuer’s key set', () => {
    it('is found to lack the key that signs, as discovery leads to it, and to have it once it is there', async () => {
      const first = await put({}, stranger)
      expect((await verify(first.id, stranger)).problems).toEqual([expect.stringMatching(/^The issuer’s JWKS lacks the key \S+ that signs/)])
      expect(api.stranger.discoveryFetches).toBeGreaterThan(0)
      await publish(api.stranger)
      const second = await put({}, stranger)
      expect((await verify(second.id, stranger)).problems).toEqual([])
    })

    it('is found to have another key by that name', async () => {
      const { id } = await put({ alg: 'ES256' })
      const { keys } = (await api.app.inject({ url: `/v1/issuers/${encodeURIComponent(api.issuer.url)}/jwks.json` })).json()
      const ours = (keys as JWK[]).find(({ alg }) => alg === 'ES256')
      const other = api.issuer.key('RS256').jwk
      api.issuer.addPublicKey({ ...other, kid: ours?.kid ?? '' })
      expect((await verify(id)).problems).toEqual([expect.stringMatching(/another key under the name/)])
    })

    it.each(['hang', 'fail', 'html', 'redirect', 'huge'] as const)('is said to be unreadable where it is (%s)', async (mode) => {
      const { id } = await put({}, stranger)
      api.stranger.setJwksMode(mode)
      const seen = await verify(id, stranger)
      api.stranger.setJwksMode('ok')
      expect(seen).toMatchObject({ outcome: 'delivered', problems: [expect.stringMatching(/^The issuer’s JWKS could not be read/) as string] })
    })
  })

  it('may be asked once a second for one receiver', async () => {
    const { id } = await put()
    const answers = await Promise.all([1, 2, 3].map(() => call('POST', `${id}:verify`, instance)))
    expect(answers.map(({ statusCode }) => statusCode).toSorted()).toEqual([200, 429, 429])
    expect(receiver.requests).toHaveLength(1)
  })

  it('G6: sends nothing for whom it does not concern, and answers 404 in the same bytes', async () => {
    const { id } = await put()
    for (const [path, as] of [[id, o1], [id, stranger], ['not-there', o1]] as const) {
      const refused = await call('POST', `${path}:verify`, as)
      expect([refused.statusCode, refused.body]).toEqual([404, body('receiver_not_found')])
    }
    expect((await call('POST', `${id}:verify`, await api.bearer({ permissions: ['receiver.read'] }))).statusCode).toBe(403)
    expect(receiver.requests).toEqual([])
  })
})
