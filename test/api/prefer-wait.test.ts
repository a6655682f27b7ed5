import { request } from 'node:http'
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { MAX_WAITERS } from '../../src/api/settled-waiters.ts'
import { seedSessions } from '../harness/seed.ts'
import { startApi } from './api.ts'
import type { TestApi } from './api.ts'

let api: TestApi
let admin: string
const none = { total: 0, acknowledged: 0, pending: 0, failed: 0, moot: 0 }

beforeAll(async () => {
  api = await startApi()
  admin = await api.bearer({ permissions: ['session.delete'] })
  await api.database.sql.query(`INSERT INTO receivers (id, type, url) VALUES ('r', 'backchannel_logout', 'https://r.example')`)
})
afterAll(() => api.close())

let id = ''
beforeEach(async () => {
  id = `wait-${Math.random()}`
  await seedSessions(api.database.sql, [{ id, issuer: api.issuer.url }])
})

const end = (prefer: string) => api.delete(id, { as: admin, headers: { prefer } })
const sqlOf = () => api.database.sql
const terminated = () => vi.waitFor(async () => {
  const { rows } = await sqlOf().query(`SELECT FROM sessions WHERE id = $1 AND state = 'terminated'`, [id])
  expect(rows).toHaveLength(1)
}, { timeout: 15_000 })
const routed = () => sqlOf().query('UPDATE commits SET routed_at = now() WHERE routed_at IS NULL')
const deliver = (state: string) =>
  sqlOf().query(
    `INSERT INTO deliveries (receiver_id, session_id, client_id, sid, sub, issuer, state, moot_at) VALUES ('r', $1, 'c', $1, 'u', 'i', $2, now())
     ON CONFLICT (receiver_id, session_id, client_id, sid) DO UPDATE SET state = excluded.state`, [id, state])

describe('Prefer: wait', () => {
  it('holds the answer until the commit is routed and its receivers have answered', async () => {
    let isAnswered = false
    const asked = end('wait=20').finally(() => (isAnswered = true))
    await terminated()
    await deliver('pending')
    await routed()
    expect(isAnswered).toBe(false)
    await deliver('acknowledged')
    const answer = await asked
    expect([answer.statusCode, answer.headers['preference-applied']]).toEqual([200, 'wait=20'])
    expect(answer.json()).toEqual({ details: expect.objectContaining({ sequence: '2' }), deliveries: { ...none, total: 1, acknowledged: 1 } })
  })

  it('answers after N seconds with what is known by then', async () => {
    const asked = end('wait=4')
    await terminated()
    await deliver('pending')
    await routed()
    expect((await asked).json().deliveries).toEqual({ ...none, total: 1, pending: 1 })
  })

  it('tells no counts before the commit is routed', async () => {
    const answer = await end('wait=0')
    expect([answer.statusCode, answer.headers['preference-applied']]).toEqual([200, 'wait=0'])
    expect(answer.json()).not.toHaveProperty('deliveries')
  })

  it('answers the repeat at once, with the same details and the counts of now', async () => {
    const first = await end('wait=0')
    await routed()
    const again = await end('wait=30')
    expect(again.json()).toEqual({ ...first.json(), deliveries: none })
  })

  it('applies nothing to an error, and nothing that it does not know', async () => {
    const refused = await api.delete('not-there', { as: admin, headers: { prefer: 'wait=5' } })
    expect([refused.statusCode, refused.headers['preference-applied']]).toEqual([404, undefined])
    const answer = await end('return=minimal, wait=soon')
    expect([answer.statusCode, answer.headers['preference-applied']]).toEqual([200, undefined])
    expect(answer.json()).not.toHaveProperty('deliveries')
  })
})

describe('many waiters', () => {
  it('are bounded: one more is answered at once, without the preference', async () => {
    const own = await startApi()
    const as = await own.bearer({ permissions: ['session.delete'] })
    await seedSessions(own.database.sql, [{ id: 's', issuer: own.issuer.url }])
    const port = await own.listen()
    const send = (prefer: string) => {
      let answered = false
      const sent = request({ port, host: '127.0.0.1', method: 'DELETE', path: '/v2/sessions/s', headers: { authorization: as, prefer } })
      const applied = new Promise<unknown>((resolve, reject) => {
        sent.on('error', reject)
        sent.on('response', (response) => {
          answered = true
          response.resume()
          resolve(response.headers['preference-applied'])
        })
      })
      applied.catch(() => {})
      sent.end()
      return { sent, applied, isHeld: () => !answered }
    }
    const all = Array.from({ length: MAX_WAITERS + 3 }, () => send('wait=30'))
    const held = () => all.filter(({ isHeld }) => isHeld())
    await vi.waitFor(() => expect(held()).toHaveLength(MAX_WAITERS), { timeout: 20_000 })
    expect(await send('wait=0').applied).toBeUndefined()
    // A client that leaves makes room for another.
    const [leaver, ...others] = held()
    leaver?.sent.destroy()
    await vi.waitFor(async () => expect(await send('wait=0').applied).toBe('wait=0'), { timeout: 20_000 })
    // A stop lets everybody go, with what they have.
    const closing = own.close()
    expect(await Promise.all(others.map(({ applied }) => applied))).toEqual(others.map(() => 'wait=30'))
    await closing
  })
})
