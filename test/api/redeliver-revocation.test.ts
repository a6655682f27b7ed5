/** `POST /v1/revocations/{id}:redeliver`. */
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { countedOutcomes, endByRevocation, outcomesOf } from '../harness/revocations.ts'
import { seedSessions } from '../harness/seed.ts'
import { createRouteRevocations } from '../../src/outbox/route-revocations.ts'
import { startRevocationApi } from './revocation-rig.ts'
import type { RevocationApi } from './revocation-rig.ts'

let api: RevocationApi
beforeAll(async () => {
  api = await startRevocationApi()
  await api.database.sql.query(
    `INSERT INTO receivers (id, type, url, issuer, client_id) VALUES ('rp', 'backchannel_logout', 'https://rp.example', $1, 'app')`, [api.issuer.url])
})
afterAll(() => api.close())

const redeliver = (id: string, options: { as?: string; body?: unknown } = {}) => api.call('POST', `/v1/revocations/${id}:redeliver`, options)

/** A revocation of organization o1 that ended `count` sessions, whose deliveries are in these states. */
const ended = async (states: readonly string[], body: object = {}): Promise<string> => {
  const ids = states.map(() => randomUUID())
  await seedSessions(api.database.sql, ids.map((id) => ({ id, issuer: api.issuer.url, userId: id, clients: [{ clientId: 'app' }] })))
  const id = await api.accept({ filter: { resourceOwners: ['o1'] }, ...body })
  await endByRevocation(api.database.sql, id, ids)
  await createRouteRevocations({ db: api.db, wakeReceiver: () => {}, maxTokenLifetimeSeconds: 3_600 })()
  for (const [at, state] of states.entries()) {
    await api.database.sql.query(
      `UPDATE deliveries SET state = $2::delivery_state, attempts = 3, last_outcome = 'server_error', done_at = CASE WHEN $2 = 'pending' THEN NULL ELSE now() END,
         moot_at = CASE WHEN $2 = 'moot' THEN now() ELSE moot_at END WHERE session_id = $1`, [ids[at], state])
  }
  api.woken.length = 0
  return id
}
const summary = async (id: string) => (await api.database.sql.query(
  `SELECT state::text, attempts, due_at < 'infinity' AS due, count(*)::int AS n FROM deliveries WHERE revocation_id = $1 GROUP BY 1, 2, 3 ORDER BY 1, 2`, [id])).rows

describe('redelivery by revocation', () => {
  it('makes its dead letters due anew, wakes their receivers, and is told in its history', async () => {
    const id = await ended(['failed', 'acknowledged', 'failed', 'moot', 'pending'])
    const other = await ended(['failed'])
    const answer = await redeliver(id)
    expect([answer.statusCode, answer.json()]).toEqual([200, { redelivered: 2, more: false }])
    expect(await summary(id)).toEqual([
      { state: 'acknowledged', attempts: 3, due: true, n: 1 }, { state: 'moot', attempts: 3, due: true, n: 1 },
      { state: 'pending', attempts: 0, due: true, n: 2 }, { state: 'pending', attempts: 3, due: true, n: 1 },
    ])
    expect(api.woken).toEqual(['rp'])
    expect(await outcomesOf(api.database.sql, id)).toEqual(await countedOutcomes(api.database.sql, id))
    expect(await summary(other)).toMatchObject([{ state: 'failed' }])
    expect((await redeliver(id)).json()).toEqual({ redelivered: 0, more: false })
    expect((await redeliver(id, { body: { state: 'moot' } })).json()).toEqual({ redelivered: 1, more: false })
    const { rows } = await api.database.sql.query(
      `SELECT actor_subject FROM revocation_events WHERE revocation_id = $1 AND type = 'notifications.redelivered'`, [id])
    expect(rows).toEqual([{ actor_subject: 'admin' }, { actor_subject: 'admin' }])
  })

  it('puts them in line where its notifications are paced, and holds them while those are paused', async () => {
    const id = await ended(['failed', 'failed', 'failed'], { pacing: { deliveriesPerSecond: 1 } })
    await redeliver(id)
    const { rows } = await api.database.sql.query<{ after: number }>(
      'SELECT extract(epoch FROM due_at - min(due_at) OVER ())::float8 AS after FROM deliveries WHERE revocation_id = $1 ORDER BY due_at', [id])
    expect(rows.map(({ after }) => Math.round(after))).toEqual([0, 1, 2])
    const paused = await ended(['failed'])
    expect((await api.call('POST', `/v1/revocations/${paused}:pause`, { body: { only: 'notifications' } })).statusCode).toBe(200)
    await redeliver(paused)
    expect(await summary(paused)).toEqual([{ state: 'pending', attempts: 0, due: false, n: 1 }])
  })

  it('G6: is there only for who sees the revocation, and may write all that it reaches', async () => {
    const id = await ended(['failed'])
    const of = (permissions: string[], org: string) => api.bearer({ permissions, sub: 'other', org })
    const asked = {
      nobody: await redeliver(id, { as: await api.bearer({ permissions: [], sub: 'other' }) }),
      foreign: await redeliver(id, { as: await of(['revocation.read', 'revocation.write'], 'o2') }),
      unknown: await redeliver(randomUUID(), { as: await of(['revocation.read', 'revocation.write'], 'o2') }),
      reader: await redeliver(id, { as: await api.bearer({ permissions: ['revocation.read'], sub: 'other' }) }),
      malformed: await redeliver('x'),
      badBody: await redeliver(id, { body: { state: 'pending' } }),
    }
    expect(Object.fromEntries(Object.entries(asked).map(([name, { statusCode }]) => [name, statusCode]))).toEqual(
      { nobody: 403, foreign: 404, unknown: 404, reader: 403, malformed: 404, badBody: 400 })
    expect(asked.foreign.body).toBe(asked.unknown.body)
    expect(await summary(id)).toMatchObject([{ state: 'failed' }])
  })
})
