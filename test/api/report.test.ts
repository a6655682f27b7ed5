import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { verifyReport } from '../../src/cli/verify-report.ts'
import { startApi } from './api.ts'
import type { TestApi } from './api.ts'
import { seedRevocation } from './ended-revocation.ts'

let api: TestApi
let folder: string
let jwks: string
let responder: string
beforeAll(async () => {
  api = await startApi()
  await api.listen()
  folder = await mkdtemp(join(tmpdir(), 'curfew-test-report-'))
  responder = await api.bearer({ sub: 'responder', permissions: ['revocation.read', 'receiver.write'] })
  await api.database.sql.query(
    `INSERT INTO receivers (id, type, url, issuer, client_id) VALUES ('shop', 'backchannel_logout', 'https://shop.example', $1, 'shop'), ('wiki', 'backchannel_logout', 'https://wiki.example', $1, 'wiki')`,
    [api.issuer.url])
})
afterAll(async () => {
  await api.close()
  await rm(folder, { recursive: true })
})

const ask = (id: string, options: { as?: string; format?: string; accept?: string } = {}) =>
  api.app.inject({
    url: `/v1/revocations/${id}/report${options.format === undefined ? '' : `?format=${options.format}`}`,
    headers: { authorization: options.as ?? responder, ...(options.accept === undefined ? {} : { accept: options.accept }) },
  })

/** Keeps a text as a file, and the keys of the issuer beside it. */
const keep = async (text: string): Promise<string> => {
  const file = join(folder, 'report')
  await writeFile(file, text)
  jwks = join(folder, 'jwks.json')
  await writeFile(jwks, (await api.app.inject(`/v1/issuers/${encodeURIComponent(api.issuer.url)}/jwks.json`)).body)
  return file
}
const verify = async (text: string) => verifyReport(await keep(text), { jwks, curfewUrl: null })

let counter = 0
/** Two sessions: a shop that acknowledged and a legacy client that nobody tells, and a wiki that failed. */
const ended = async (change: Partial<Parameters<typeof seedRevocation>[1]> = {}) => {
  const [one, two] = [`a${++counter}`, `b${counter}`]
  const id = await seedRevocation(api.database.sql, {
    issuer: api.issuer.url,
    sessions: [{ id: one, clients: [{ clientId: 'shop' }, { clientId: 'legacy' }] }, { id: two, userId: 'u2', clients: [{ clientId: 'wiki' }] }],
    told: [{ session: one, receiver: 'shop', clientId: 'shop', state: 'acknowledged' }, { session: two, receiver: 'wiki', clientId: 'wiki', state: 'failed', outcome: 'http_500' }],
    ...change,
  })
  return { id, one, two }
}

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
    const pending = await ended({ told: told.map((delivery) => ({ ...delivery, session: `a${counter + 1}` })) })
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

  it('is written for a few readers at once, and whoever leaves makes room', async () => {
    const { id } = await ended()
    const { port } = api.app.server.address() as AddressInfo
    const begin = () => new Promise<{ socket: Socket; status: string }>((resolve) => {
      const socket = connect(port, '127.0.0.1')
      socket.write(`GET /v1/revocations/${id}/report HTTP/1.1\r\nhost: x\r\nauthorization: ${responder}\r\n\r\n`)
      socket.once('data', (chunk: Buffer) => resolve({ socket, status: chunk.toString().slice(9, 12) }))
    })
    const holder = await api.database.sql.connect()
    try {
      // Whoever reads comes to the sessions, and no further.
      await holder.query('BEGIN; LOCK TABLE session_events IN ACCESS EXCLUSIVE MODE')
      const held = await Promise.all([begin(), begin(), begin(), begin()])
      expect(held.map(({ status }) => status)).toEqual(['200', '200', '200', '200'])
      expect((await ask(id)).statusCode).toBe(503)
      for (const { socket } of held) socket.destroy()
      await expect.poll(async () => (await begin()).status).toBe('200')
    } finally {
      await holder.query('ROLLBACK')
      holder.release()
    }
  })

  it('lacks its signature where it breaks off, and the log says why', async () => {
    const { id } = await ended()
    const url = `http://127.0.0.1:${(api.app.server.address() as AddressInfo).port}/v1/revocations/${id}/report?format=ndjson`
    const holder = await api.database.sql.connect()
    try {
      await holder.query('BEGIN; LOCK TABLE session_events IN ACCESS EXCLUSIVE MODE')
      const answer = await fetch(url, { headers: { authorization: responder } })
      await expect(answer.text()).rejects.toThrow('terminated')
      expect(api.logged.some((line) => line.includes('"report.broke_off"'))).toBe(true)
    } finally {
      await holder.query('ROLLBACK')
      holder.release()
    }
  })

  it('G12: refuses a format that it does not know', async () => {
    const { id } = await ended()
    expect((await ask(id, { format: 'pdf' })).statusCode).toBe(400)
  })
})

describe('a report’s signature', () => {
  it.each(['json', 'csv', 'ndjson'])('is good for what was signed, and for nothing else: %s', async (format) => {
    const { id } = await ended()
    const { body } = await ask(id, { format })
    const [first, ...said] = await verify(body)
    expect(first).toMatch(/^Verified: /)
    expect(said.join('\n')).toContain(`revocations/${id}`)
    expect(said.join('\n')).toContain('done, final: 2 sessions ended, 0 remaining')
    await expect(verify(body.replace('stolen laptops', 'stolen laptop'))).rejects.toThrow('It was changed after it was signed')
    await expect(verify(body.replace(/"signature":"[^"]*"|^signature,.*$/m, ''))).rejects.toThrow('ends without a signature')
    await expect(verify(body.slice(0, body.length / 2))).rejects.toThrow('ends without a signature')
    await expect(verify(body.replace(/(eyJ[\w-]+\.[\w-]+)\.[\w-]+/, '$1.AAAA'))).rejects.toThrow('Its signature is not good')
    const other = await ended()
    const signature = /eyJ[\w-]+\.[\w-]+\.[\w-]+/
    const borrowed = signature.exec((await ask(other.id, { format })).body)?.[0] ?? ''
    await expect(verify(body.replace(signature, borrowed))).rejects.toThrow('It was changed after it was signed')
  })

  it('outlives another layout of the JSON document', async () => {
    const { id } = await ended()
    const { report, signature } = (await ask(id)).json() as { report: Record<string, unknown>; signature: string }
    const turned = Object.fromEntries(Object.entries(report).toReversed())
    expect((await verify(JSON.stringify({ signature, report: turned }, null, 2)))[0]).toMatch(/^Verified/)
  })

  it('covers the very bytes of NDJSON, so that anybody can check it', async () => {
    const { id } = await ended()
    const { body } = await ask(id, { format: 'ndjson' })
    const lines = body.split('\n')
    const { signature } = JSON.parse(lines.at(-2) ?? '') as { signature: string }
    const claims = JSON.parse(Buffer.from(signature.split('.')[1] ?? '', 'base64url').toString()) as { report: { sha256: string } }
    const signed = lines.slice(0, -2).map((line) => `${line}\n`).join('')
    const digest = await crypto.subtle.digest('SHA-256', Buffer.from(signed))
    expect(claims.report.sha256).toBe(Buffer.from(digest).toString('hex'))
  })

  it('is broken where a document says a thing twice or more than it was signed with', async () => {
    const { id } = await ended()
    const { body } = await ask(id)
    await expect(verify(body.replace('"state":"done"', '"state":"cancelled","state":"done"'))).rejects.toThrow('says a thing twice')
    await expect(verify(body.replace('{"report":', '{"report":{"state":"cancelled"},"report":'))).rejects.toThrow('says a thing twice')
    await expect(verify(body.replace('{"report":', '{"report":{"st\\u0061te":"cancelled"},"r\\u0065port":'))).rejects.toThrow('says a thing twice')
    await expect(verify(body.replace(/\}\s*$/, ',"note":"all receivers were told"}'))).rejects.toThrow('more than a report')
    expect((await verify(JSON.stringify(JSON.parse(body), null, 2)))[0]).toMatch(/^Verified/)
  })

  it('is nobody else’s: a logout token is no report, and a report no token', async () => {
    const { id } = await ended()
    const { body } = await ask(id, { format: 'ndjson' })
    const signature = /eyJ[\w-]+\.[\w-]+\.[\w-]+/
    const token = await api.issuer.token({ sub: `revocations/${id}` })
    await expect(verify(body.replace(signature, token))).rejects.toThrow(/No key that you trust|not good/)
    const asToken = signature.exec(body)?.[0] ?? ''
    expect((await ask(id, { as: `Bearer ${asToken}` })).statusCode).toBe(401)
  })

  it('is checked with the keys that the reader trusts alone', async () => {
    const { id } = await ended()
    const file = await keep((await ask(id)).body)
    await expect(verifyReport(file, { curfewUrl: null })).rejects.toThrow('Say whose keys to trust')
    await expect(verifyReport(file, { jwks, issuer: 'https://else', curfewUrl: null })).rejects.toThrow('not of https://else')
    await writeFile(join(folder, 'none.json'), '{"keys":[]}')
    await expect(verifyReport(file, { jwks: join(folder, 'none.json'), curfewUrl: null })).rejects.toThrow('No key that you trust')
    await writeFile(join(folder, 'none.json'), 'no keys')
    await expect(verifyReport(file, { jwks: join(folder, 'none.json'), curfewUrl: null })).rejects.toThrow('is no JWKS')
    await expect(verifyReport(join(folder, 'none.json'), { jwks, curfewUrl: null })).rejects.toThrow('no report')
    const url = `http://127.0.0.1:${(api.app.server.address() as AddressInfo).port}`
    expect((await verifyReport(file, { curfewUrl: url, issuer: api.issuer.url }))[0]).toMatch(/^Verified/)
    expect(await readFile(file, 'utf8')).toContain('signature')
  })
})
