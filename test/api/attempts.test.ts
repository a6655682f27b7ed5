/** `/v1/attempts`: guards report what they refused, and an incident responder reads the number. */
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { pruneDeadUses, readDeadUses } from '../../src/store/dead-uses.ts'
import { createSetRule } from '../../src/termination/cutoff-rules.ts'
import { endByRevocation, seedRevocation } from '../harness/revocations.ts'
import { seedSessions } from '../harness/seed.ts'
import { startApi } from './api.ts'
import type { TestApi } from './api.ts'

let api: TestApi
let guard: string
let ruleId: string
beforeAll(async () => {
  api = await startApi()
  guard = await api.bearer({ permissions: ['session.read'], sub: 'guard' })
  await seedSessions(api.database.sql, [{ id: 'dead', issuer: api.issuer.url }, { id: 'live', issuer: api.issuer.url }, { id: 'foreign', issuer: api.stranger.url }])
  for (const [id, as] of [['dead', api.issuer], ['foreign', api.stranger]] as const) {
    const token = await as.token({ permissions: ['session.delete'] })
    expect((await api.delete(id, { as: `Bearer ${token}` })).statusCode).toBe(200)
  }
  const rule = await createSetRule({ maxLifetimeSeconds: 1, maxTokenLifetimeSeconds: 1 })(api.db, {
    issuer: api.issuer.url, organization: null, user: 'mallory', bornBefore: null, excludeUsers: [], excludeSessions: [],
    reason: 'test', actor: { issuer: api.issuer.url, subject: 'admin' }, revocationId: null,
  })
  ruleId = rule.id
})
afterAll(() => api.close())

const report = (attempts: unknown, as = guard) =>
  api.app.inject({ method: 'POST', url: '/v1/attempts', headers: { authorization: as }, payload: JSON.stringify({ attempts }) })
const read = async (query: string, as = guard) => api.app.inject({ url: `/v1/attempts?${query}`, headers: { authorization: as } })
const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)

describe('attempts', () => {
  it('add up by revocation: of the sessions that it ended, and of what its rules killed', async () => {
    const { url: issuer } = api.issuer
    const { sql } = api.database
    const id = await seedRevocation(sql, { issuers: [issuer] })
    await seedSessions(sql, [{ id: 'ended-1', issuer }, { id: 'ended-2', issuer }])
    await endByRevocation(sql, id, ['ended-1', 'ended-2'])
    const { id: ruleOfIt } = await createSetRule({ maxLifetimeSeconds: 1, maxTokenLifetimeSeconds: 1 })(api.db, {
      issuer, organization: 'o7', user: null, bornBefore: null, excludeUsers: [], excludeSessions: [],
      reason: 'test', actor: { issuer, subject: 'admin' }, revocationId: id,
    })
    await report([
      { issuer, sessionId: 'ended-1', count: 3 }, { issuer, sessionId: 'ended-2', count: 4 }, { issuer, ruleId: ruleOfIt, count: 5 }, { issuer, sessionId: 'dead', count: 6 },
    ])
    expect((await read(`revocationId=${id}`)).json()).toEqual({ attempts: [{ issuer, count: '12', firstDate: time, lastDate: time }] })
    const stranger = `Bearer ${await api.stranger.token({ permissions: ['session.read'] })}`
    expect((await read(`revocationId=revocations/${id}`)).json()).toMatchObject({ attempts: [{ issuer, count: '12' }] })
    expect((await read(`revocationId=${id}`, stranger)).json()).toEqual({ attempts: [] })
    expect((await read('revocationId=x')).json()).toEqual({ attempts: [] })
    expect((await read(`revocationId=${id}&sessionId=dead`)).statusCode).toBe(400)
    await sql.query(`DELETE FROM dead_uses`)
  })

  it('add up, for sessions and for rules, and can be read', async () => {
    const { url: issuer } = api.issuer
    const batch = [{ issuer, sessionId: 'dead', count: 3 }, { issuer, ruleId, count: 1_000_000_000 }, { issuer, sessionId: 'dead', count: 2 }]
    expect([(await report(batch)).statusCode, (await report(batch)).statusCode]).toEqual([204, 204])
    expect((await read('sessionId=dead')).json()).toEqual({ attempts: [{ issuer, count: '10', firstDate: time, lastDate: time }] })
    expect((await read(`ruleId=${ruleId.toUpperCase()}`)).json()).toMatchObject({ attempts: [{ issuer, count: '2000000000' }] })
    expect((await read('sessionId=live')).json()).toEqual({ attempts: [] })
  })

  it('are kept only for what is dead, and of the reporter’s own issuers', async () => {
    const { url: issuer } = api.issuer
    const passedOver = [
      { issuer, sessionId: 'live', count: 1 }, { issuer, sessionId: 'unknown', count: 1 }, { issuer, ruleId: randomUUID(), count: 1 },
      { issuer, ruleId: 'no uuid', count: 1 }, { issuer: api.stranger.url, sessionId: 'foreign', count: 1 }, { issuer: api.stranger.url, ruleId, count: 1 },
    ]
    expect((await report(passedOver)).statusCode).toBe(204)
    const { rows } = await api.database.sql.query(`SELECT target_id FROM dead_uses WHERE target_id NOT IN ('dead', $1)`, [ruleId])
    expect(rows).toEqual([])
    const stranger = `Bearer ${await api.stranger.token({ permissions: ['session.read'] })}`
    expect((await read('sessionId=dead', stranger)).json()).toEqual({ attempts: [] })
  })

  it('count for the session, by whatever sid a participant knows it', async () => {
    const { url: issuer } = api.issuer
    await seedSessions(api.database.sql, [{ id: 'shared', issuer, clients: [{ clientId: 'app', sid: 'shared/app' }, { clientId: 'shop', sid: 'shared/shop' }] }])
    const one = (sessionId: string) => ({ issuer, sessionId, count: 1 })
    await report([one('shared/app')])
    expect((await read('sessionId=shared')).json()).toEqual({ attempts: [] })
    await api.delete('shared', { as: await api.bearer({ permissions: ['session.delete'] }) })
    await report([one('shared/app'), one('shared/shop'), one('shared')])
    expect((await read('sessionId=shared')).json()).toMatchObject({ attempts: [{ issuer, count: '3' }] })
  })

  it('may be reported by many at once', async () => {
    const { url: issuer } = api.issuer
    await seedSessions(api.database.sql, ['m1', 'm2', 'm3'].map((id) => ({ id, issuer })))
    await api.database.sql.query(`UPDATE sessions SET state = 'terminated', terminated_at = now() WHERE id LIKE 'm_'`)
    const orders = [['m1', 'm2', 'm3'], ['m3', 'm2', 'm1'], ['m2', 'm3', 'm1']]
    const answers = await Promise.all(Array.from({ length: 30 }, (_, n) => report(orders[n % 3]?.map((sessionId) => ({ issuer, sessionId, count: 1 })))))
    expect(new Set(answers.map(({ statusCode }) => statusCode))).toEqual(new Set([204]))
    for (const id of ['m1', 'm2', 'm3']) expect((await read(`sessionId=${id}`)).json()).toMatchObject({ attempts: [{ count: '30' }] })
  })

  it('are counted too where Curfew itself is asked with a dead token', async () => {
    const token = await api.bearer({ sid: 'dead', permissions: ['session.read'] })
    const before = await readDeadUses(api.db, { by: 'session', id: 'dead', issuers: [api.issuer.url] })
    expect((await read('sessionId=dead', token)).statusCode).toBe(401)
    await expect.poll(() => readDeadUses(api.db, { by: 'session', id: 'dead', issuers: [api.issuer.url] })).toMatchObject([
      { count: String(Number(before[0]?.count ?? 0) + 1) },
    ])
  })

  it('need session.read for the instance', async () => {
    for (const as of [await api.bearer({}), await api.bearer({ permissions: ['session.read'], org: 'o1' })]) {
      expect([(await report('x', as)).statusCode, (await read('sessionId=dead', as)).statusCode]).toEqual([403, 403])
    }
  })

  it('are refused where they make no sense', async () => {
    const { url: issuer } = api.issuer
    const one = { issuer, sessionId: 'dead', count: 1 }
    const wrong = [
      undefined, {}, [{ issuer, count: 1 }], [{ ...one, ruleId }], [{ ...one, count: 0 }], [{ ...one, count: 1.5 }], [{ ...one, count: 1_000_000_001 }],
      [{ ...one, sessionId: 'a\0' }], [{ ...one, issuer: '' }], Array.from({ length: 1_001 }, () => one),
    ]
    for (const attempts of wrong) expect((await report(attempts)).json()).toMatchObject({ code: 3 })
    for (const query of ['', `sessionId=a&ruleId=${ruleId}`, 'sessionId=%00', 'sessionId=', 'sessionId=a&revocation=b']) expect((await read(query)).statusCode).toBe(400)
  })

  it('are forgotten after their retention', async () => {
    await api.database.sql.query(`UPDATE dead_uses SET last_at = now() - interval '2 days' WHERE target_id = 'm1'`)
    expect(await pruneDeadUses(api.db, { retentionSeconds: 3 * 86_400, limit: 10 })).toBe(0)
    expect(await pruneDeadUses(api.db, { retentionSeconds: 86_400, limit: 10 })).toBe(1)
    expect((await read('sessionId=m1')).json()).toEqual({ attempts: [] })
  })
})
