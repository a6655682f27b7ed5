import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { factsOf } from '../../src/api/report-parts.ts'
import { openDatabase } from '../../src/store/postgres.ts'
import type { Database } from '../../src/store/postgres.ts'
import { createReportReads } from '../../src/store/revocation-report.ts'
import { readVisibleRevocation } from '../../src/store/revocations.ts'
import type { TestApi } from './api.ts'
import { startReportRig } from './report-rig.ts'
import type { ReportRig } from './report-rig.ts'

let api: TestApi
let rig: ReportRig
beforeAll(async () => {
  rig = await startReportRig()
  api = rig.api
})
afterAll(() => rig.close())

const ask: ReportRig['ask'] = (...asked) => rig.ask(...asked)
const ended: ReportRig['ended'] = (change) => rig.ended(change)
const verify: ReportRig['verify'] = (text) => rig.verify(text)

describe('GET /v1/revocations/{id}/report', () => {
  it('callers of organizations leave room for those of the instance', async () => {
    const { id } = await ended({ organizations: ['o1'] })
    const tenant = await api.bearer({ sub: 'tenant', permissions: ['revocation.read'], org: 'o1' })
    const holder = await api.database.sql.connect()
    await holder.query('BEGIN; LOCK TABLE revocation_events')
    const three = [1, 2, 3].map(() => ask(id, { as: tenant }))
    const refused = await Promise.race(three)
    const ofInstance = ask(id)
    await holder.query('ROLLBACK')
    holder.release()
    expect([refused.statusCode, refused.json().message]).toEqual([503, expect.stringContaining('Overloaded')])
    expect((await Promise.all(three)).map(({ statusCode }) => statusCode).sort()).toEqual([200, 200, 503])
    expect((await ofInstance).statusCode).toBe(200)
    expect((await ask(id, { as: tenant })).statusCode).toBe(200)
  })

  it('G9: a user who was told of at one issuer was not told of at another', async () => {
    const elsewhere = 'https://elsewhere.example'
    await api.database.sql.query(
      `INSERT INTO receivers (id, type, url, issuer, client_id, subject) VALUES ('portal-here', 'backchannel_logout', 'https://here.example', $1, 'portal', 'sub'), ('portal-there', 'backchannel_logout', 'https://there.example', $2, 'portal', 'sub')`,
      [api.issuer.url, elsewhere])
    const { id } = await ended({
      sessions: [{ id: 'portal-one', clients: [{ clientId: 'portal' }] }, { id: 'portal-two', issuer: elsewhere, clients: [{ clientId: 'portal' }] }],
      told: [],
    })
    await api.database.sql.query(
      `INSERT INTO deliveries (receiver_id, session_id, client_id, sid, sub, issuer, moot_at, revocation_id, state, done_at, of_user)
       VALUES ('portal-here', '', 'portal', $2 || ' u1', 'u1', $1, now(), $2::uuid, 'acknowledged', now(), true)`, [api.issuer.url, id])
    await api.database.sql.query(
      `INSERT INTO revocation_outcomes (revocation_id, receiver_id, total, pending, acknowledged, failed, moot) VALUES ($1, 'portal-here', 1, 0, 1, 0, 0)`, [id])
    const { report } = (await ask(id)).json()
    expect(report.untold).toEqual([{ clientId: 'portal', why: 'no_receiver', participants: 1 }])
  })

  it('G9: says who asked and why, what ended, who was told and who was not, and when', async () => {
    const { id, one } = await ended()
    await api.database.sql.query(`INSERT INTO dead_uses VALUES ($1, 'session', $2, 7, now(), now())`, [api.issuer.url, one])
    const answer = await ask(id)
    expect(answer.statusCode).toBe(200)
    expect(answer.headers['content-type']).toBe('application/json; charset=utf-8')
    const actor = { issuer: api.issuer.url, subject: 'responder' }
    const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
    expect(answer.json().report).toMatchObject({
      name: `revocations/${id}`, generatedTime: time, final: true, state: 'done', mode: 'revoke', reason: 'stolen laptops', ticket: 'INC-1', actor,
      issuers: [api.issuer.url], organizations: null, containment: 'rows', rules: [],
      exclude: { userIds: ['break-glass'], sessionIds: [] },
      clocks: { createTime: time, cutoffTime: time, committedTime: time, enforcedTime: time, acknowledgedTime: time },
      history: [{ type: 'revocation.accepted', actor, time }, { type: 'terminations.paused', actor: { ...actor, subject: 'second' } }, { type: 'revocation.committed', actor: null }],
      sessions: { expected: '2', expectedExact: true, matched: '2', terminated: '2', remaining: '0', remainingExact: true, proven: true },
      deliveries: { total: '2', acknowledged: '1', pending: '0', failed: '1', moot: '0' },
      receivers: [
        { id: 'shop', type: 'backchannel_logout', clientId: 'shop', total: '1', acknowledged: '1', failed: '0', acknowledgedTime: time, failures: {} },
        { id: 'wiki', acknowledged: '0', failed: '1', acknowledgedTime: null, failures: { http_500: '1' } },
      ],
      untold: [{ clientId: 'legacy', why: 'no_receiver', participants: 1 }],
      attempts: { sessions: '7', rules: '0', lastTime: time },
      limits: expect.arrayContaining([expect.stringContaining('refresh tokens')]),
    })
  })

  it('lists each session with what became of it as NDJSON, by Accept or by ?format', async () => {
    const { id, one, two } = await ended()
    const answer = await ask(id, { accept: 'application/x-ndjson;q=1, application/json' })
    expect(answer.headers['content-type']).toBe('application/x-ndjson')
    expect((await ask(id, { format: 'ndjson', accept: 'text/csv' })).headers['content-type']).toBe('application/x-ndjson')
    const lines = answer.body.trim().split('\n').map((line) => JSON.parse(line) as Record<string, Record<string, unknown>>)
    expect(lines.map((line) => Object.keys(line)[0])).toEqual(['revocation', 'receiver', 'receiver', 'session', 'session', 'end', 'signature'])
    expect(lines[3]?.['session']).toMatchObject({
      id: one, issuer: api.issuer.url, userId: 'u1', resourceOwner: 'o1',
      told: [{ receiver: 'shop', clientId: 'shop', state: 'acknowledged', outcome: null }], untold: [{ clientId: 'legacy', why: 'no_receiver' }],
    })
    expect(lines[4]?.['session']).toMatchObject({ id: two, userId: 'u2', told: [{ receiver: 'wiki', state: 'failed', outcome: 'http_500' }], untold: [] })
    expect(lines[5]?.['end']).toMatchObject({ listed: 2 })
  })

  it('is a table as CSV, in which no cell is a formula', async () => {
    const { id, one } = await ended({ reason: '=HYPERLINK("http://evil")' })
    const answer = await ask(id, { format: 'csv' })
    expect(answer.headers['content-type']).toMatch(/^text\/csv/)
    const lines = answer.body.trimEnd().split('\r\n')
    expect(lines[0]).toBe('record,name,value,issuer,organization,user,born,terminated,acknowledged,pending,failed,moot,untold,attempts,detail')
    expect(lines).toContain('fact,sessions.terminated,2')
    expect(lines).toContain('fact,attempts.sessions,0')
    expect(lines).toContain('fact,reason,"\'=HYPERLINK(""http://evil"")"')
    expect(lines.find((line) => line.startsWith(`session,${one},`))).toMatch(/,1,0,0,0,1,0,legacy: no_receiver$/)
    expect(lines.find((line) => line.startsWith('receiver,wiki,'))).toMatch(/^receiver,wiki,backchannel_logout,,,,,,0,0,1,0,,,http_500: 1$/)
  })

  it('turns pages where there are many sessions, and tells each once', async () => {
    const sessions = Array.from({ length: 2_500 }, (_, index) => ({ id: `many-${String(index).padStart(4, '0')}` }))
    const { id } = await ended({ sessions, told: [] })
    const { body } = await ask(id, { format: 'ndjson' })
    const ids = body.trim().split('\n').map((line) => (JSON.parse(line) as { session?: { id: string } }).session?.id).filter((one) => one !== undefined)
    expect(ids.toSorted()).toEqual(sessions.map((session) => session.id))
    expect((await verify(body))[0]).toMatch(/^Verified/)
  })

  it('is not final while sessions are to be ended or receivers to be told, and says so', async () => {
    const running = await ended({ state: 'running' })
    expect((await ask(running.id)).json().report).toMatchObject({
      final: false, sessions: { proven: false }, untold: [{ clientId: 'legacy', why: 'not_yet' }],
      limits: expect.arrayContaining([expect.stringContaining('not final')]),
    })
    const { id, one } = await ended()
    const told = [{ session: one, receiver: 'shop', clientId: 'shop', state: 'pending' }]
    const pending = await ended({ told: told.map((delivery) => ({ ...delivery, session: `a${rig.count() + 1}` })) })
    expect((await ask(pending.id)).json().report.final).toBe(false)
    expect((await ask(id)).json().report.final).toBe(true)
  })

  it('counts anew what is left, and finds a session that lives against all proof', async () => {
    const { id, one } = await ended()
    // The row is brought back behind everybody's back.
    await api.database.sql.query('ALTER TABLE sessions DISABLE TRIGGER USER')
    await api.database.sql.query(`UPDATE sessions SET state = 'active', terminated_at = NULL WHERE id = $1`, [one])
    await api.database.sql.query('ALTER TABLE sessions ENABLE TRIGGER USER')
    expect((await ask(id)).json().report.sessions).toMatchObject({ remaining: '1', proven: false })
  })

  it('does not pass a count that Postgres broke off for the proof that none is left', async () => {
    const { id } = await ended()
    const hurried = openDatabase({ url: api.database.url, name: 'hurried', max: 1, statementTimeoutMs: 50, lockTimeoutMs: 10_000 })
    const readsOf = (db: Database) => createReportReads({ db, retentionSeconds: 86_400 })
    const [reads, { countRemaining }] = [readsOf(api.db), readsOf(hurried)]
    const seen = await readVisibleRevocation(api.db, { id, viewer: { actor: { issuer: api.issuer.url, subject: 'responder' }, reach: 'instance', issuers: [api.issuer.url] } })
    if (seen === null) throw new Error('There is no such revocation')
    const holder = await api.database.sql.connect()
    try {
      await holder.query('BEGIN; LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE')
      const { sessions, limits } = await factsOf({ ...reads, countRemaining }, seen)
      expect(sessions).toMatchObject({ remaining: '0', remainingExact: false, proven: true })
      expect(limits).toContain(`What remains was not counted to its end: it is at least so many. That none was left is what the last pass over all of them found at ${seen.committed}; this count cannot say so again.`)
    } finally {
      await holder.query('ROLLBACK')
      holder.release()
      await hurried.$disconnect()
    }
    expect((await factsOf(reads, seen)).limits).not.toContainEqual(expect.stringContaining('not counted'))
  })

  it('says of sessions that a user was told of as a whole who told that user, and how it went', async () => {
    const { id, one, two } = await ended({ told: [] })
    const told = (client: string, sub: string, state: string) => api.database.sql.query(
      `INSERT INTO deliveries (receiver_id, session_id, client_id, sid, sub, issuer, moot_at, revocation_id, state, of_user)
       VALUES ($1, '', $1, $2 || ' ' || $3, $3, $4, now() + interval '1 hour', $2::uuid, $5::text::delivery_state, true)`, [client, id, sub, api.issuer.url, state])
    await told('shop', 'u1', 'acknowledged')
    await told('wiki', 'u2', 'pending')
    await api.database.sql.query(`INSERT INTO revocation_outcomes (revocation_id, receiver_id, total) VALUES ($1, 'shop', 1), ($1, 'wiki', 1)`, [id])
    const lines = (await ask(id, { format: 'ndjson' })).body.split('\n').filter((line) => line.startsWith('{"session"'))
    expect(lines.map((line) => (JSON.parse(line) as { session: unknown }).session)).toMatchObject([
      { id: one, told: [{ receiver: 'shop', clientId: 'shop', state: 'acknowledged' }], untold: [{ clientId: 'legacy' }] },
      { id: two, told: [{ receiver: 'wiki', clientId: 'wiki', state: 'pending' }], untold: [] },
    ])
  })

  it('says of a participant whose delivery is kept no longer that it cannot say', async () => {
    const { id, one } = await ended()
    await api.database.sql.query('DELETE FROM deliveries WHERE session_id = $1', [one])
    await api.database.sql.query(`UPDATE session_events SET created_at = created_at - interval '2 hours' WHERE session_id = $1 AND type = 'session.terminated'`, [one])
    expect((await ask(id)).json().report.untold).toEqual([
      { clientId: 'legacy', why: 'forgotten', participants: 1 }, { clientId: 'shop', why: 'forgotten', participants: 1 },
    ])
  })

  it('G6: needs revocation.read, and answers 404 for what lies beyond one’s reach', async () => {
    const { id } = await ended({ organizations: ['o1'] })
    const within = await api.bearer({ sub: 'x', permissions: ['revocation.read'], org: 'o1' })
    expect((await ask(id, { as: within })).statusCode).toBe(200)
    expect((await ask(id, { as: await api.bearer({ sub: 'x', permissions: ['session.delete'] }) })).statusCode).toBe(403)
    const beyond = [
      await ask(id, { as: await api.bearer({ sub: 'x', permissions: ['revocation.read'], org: 'o2' }) }),
      await ask(id, { as: `Bearer ${await api.stranger.token({ permissions: ['revocation.read'] })}` }),
      await ask('00000000-0000-7000-8000-000000000000'),
      await ask('no-id'),
    ]
    for (const answer of beyond) expect([answer.statusCode, answer.json().message]).toEqual([404, 'Revocation does not exist (CURFEW-rev04)'])
  })

  it('G6: names no receiver of the instance to a caller who is bound to organizations', async () => {
    const { id } = await ended({ organizations: ['o1'] })
    const within = await api.bearer({ sub: 'x', permissions: ['revocation.read'], org: 'o1' })
    const { receivers } = (await ask(id, { as: within })).json().report as { receivers: unknown[] }
    expect(receivers).toMatchObject([{ id: null, clientId: 'shop', acknowledged: '1' }, { id: null, clientId: 'wiki' }])
    expect((await ask(id, { as: within, format: 'ndjson' })).body).not.toContain('"receiver":"shop"')
  })

  it('G12: refuses a format that it does not know', async () => {
    const { id } = await ended()
    expect((await ask(id, { format: 'pdf' })).statusCode).toBe(400)
  })
})
