import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { CurfewError } from '../../src/errors.ts'
import { startApi } from './api.ts'
import type { TestApi } from './api.ts'

let api: TestApi
let instance: string
let o1: string

beforeAll(async () => {
  api = await startApi()
  const permissions = ['receiver.read', 'receiver.write']
  instance = await api.bearer({ permissions })
  o1 = await api.bearer({ permissions, org: 'o1' })
  for (const resourceOwner of ['o1', 'o2']) {
    await api.app.inject({
      method: 'PUT', url: `/v1/receivers/of-${resourceOwner}`, headers: { authorization: instance },
      payload: { type: 'backchannel_logout', url: 'https://app.example/logout', clientId: 'app', resourceOwner },
    })
  }
})
afterAll(() => api.close())

const post = (path: string, as: string, payload?: object) =>
  api.app.inject({ method: 'POST', url: `/v1/${path}`, headers: { authorization: as }, ...(payload === undefined ? {} : { payload }) })
const body = (kind: ConstructorParameters<typeof CurfewError>[0]): string => JSON.stringify(new CurfewError(kind).body())
const bury = async (receiverId: string, state = 'failed'): Promise<string> => {
  const { rows } = await api.database.sql.query<{ id: string }>(
    `INSERT INTO deliveries (receiver_id, session_id, client_id, sid, sub, issuer, state, attempts, moot_at, done_at)
     VALUES ($1, gen_random_uuid()::text, 'app', 's', 'u', $3, $2::delivery_state, 9, now() + interval '1 h', now()) RETURNING id::text`,
    [receiverId, state, api.issuer.url])
  return rows[0]?.id ?? ''
}

describe('redelivery', () => {
  it('of a receiver’s dead letters says how many, and wakes the receiver', async () => {
    await bury('of-o1')
    await bury('of-o1')
    api.woken.splice(0)
    expect((await post('receivers/of-o1:redeliver', o1)).json()).toEqual({ redelivered: 2, more: false })
    expect(api.woken).toEqual(['of-o1'])
    expect((await post('receivers/of-o1:redeliver', o1, { state: 'failed' })).json()).toEqual({ redelivered: 0, more: false })
    expect(api.woken).toEqual(['of-o1'])
  })

  it('of one delivery answers with it, and wakes its receiver', async () => {
    const id = await bury('of-o1')
    api.woken.splice(0)
    const answer = await post(`deliveries/${id}:redeliver`, o1)
    expect(answer.json()).toMatchObject({ id, receiverId: 'of-o1', state: 'pending', attempts: 0, doneDate: null })
    expect(answer.json().redeliveryDate).toMatch(/Z$/)
    expect(api.woken).toEqual(['of-o1'])
    expect((await post(`deliveries/${id}:redeliver`, o1)).statusCode).toBe(200)
    const acknowledged = await post(`deliveries/${await bury('of-o1', 'acknowledged')}:redeliver`, o1)
    expect([acknowledged.statusCode, acknowledged.body]).toEqual([409, body('delivery_not_dead')])
  })

  it('G6: of what lies beyond the caller’s reach is 404, in the same bytes as of what is not there', async () => {
    const foreign = await bury('of-o2')
    for (const id of [foreign, '999999', '99999999999999999999', 'x', '%F0%9F%92%A9']) {
      const answer = await post(`deliveries/${id}:redeliver`, o1)
      expect([answer.statusCode, answer.body]).toEqual([404, body('delivery_not_found')])
    }
    for (const id of ['of-o2', 'not-there']) {
      const answer = await post(`receivers/${id}:redeliver`, o1)
      expect([answer.statusCode, answer.body]).toEqual([404, body('receiver_not_found')])
    }
    const stranger = `Bearer ${await api.stranger.token({ permissions: ['receiver.write'] })}`
    expect((await post(`deliveries/${foreign}:redeliver`, stranger)).statusCode).toBe(404)
    const { rows } = await api.database.sql.query('SELECT state::text FROM deliveries WHERE id = $1', [foreign])
    expect(rows).toEqual([{ state: 'failed' }])
  })

  it('needs receiver.write', async () => {
    const reader = await api.bearer({ permissions: ['receiver.read'] })
    for (const path of ['receivers/of-o1:redeliver', 'deliveries/1:redeliver']) expect((await post(path, reader)).statusCode).toBe(403)
  })

  it.each([{ state: 'acknowledged' }, { state: null }, { colour: 'red' }])('of %j is refused', async (payload) => {
    expect((await post('receivers/of-o1:redeliver', o1, payload)).statusCode).toBe(400)
  })
})
