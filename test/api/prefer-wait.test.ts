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
    const answer = await end('respond-async, return=minimal, wait=soon')
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
    const open: ReturnType<typeof request>[] = []
    const answered = (prefer: string) => new Promise<{ applied: unknown; held: ReturnType<typeof request> }>((resolve, reject) => {
      const held = request({ port, host: '127.0.0.1', method: 'DELETE', path: '/v2/sessions/s', headers: { authorization: as, prefer } }, (response) => {
        response.resume()
        resolve({ applied: response.headers['preference-applied'], held })
      })
      open.push(held)
      held.on('error', reject)
      held.end()
    })
    const all = Array.from({ length: MAX_WAITERS }, () => answered('wait=30').catch(() => null))
    // Once the house is full, a further one is answered at once; a client that leaves makes room again.
    await vi.waitFor(async () => expect((await answered('wait=0')).applied).toBeUndefined(), { timeout: 15_000 })
    open[0]?.destroy()
    await vi.waitFor(async () => expect((await answered('wait=0')).applied).toBe('wait=0'), { timeout: 15_000 })
    // A stop lets everybody go, with what they have.
    const closing = own.close()
    const results = await Promise.all(all)
    expect(results.filter((result) => result?.applied === 'wait=30').length).toBe(MAX_WAITERS - 1)
    await closing
  })
})
