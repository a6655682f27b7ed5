import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { createGuard } from '../../src/client/index.ts'
import { eventsOf } from '../../src/client/lines.ts'
import type { EntryOnTheWire, SnapshotHead } from '../../src/client/wire.ts'
import { insertRule } from '../../src/store/cutoff-rules.ts'
import { givePositions, pruneEntries, readEntries, readHead } from '../../src/store/stream.ts'
import { terminateSessions } from '../../src/store/terminations.ts'
import { command, seedSessions } from '../harness/seed.ts'
import { startApi } from './api.ts'
import type { TestApi } from './api.ts'

let api: TestApi
let reader: string
let base: string

beforeAll(async () => {
  api = await startApi()
  reader = await api.bearer({ permissions: ['session.read'] })
  base = `http://127.0.0.1:${await api.listen()}`
})
afterAll(() => api.close())
beforeEach(() => api.database.sql.query('TRUNCATE sessions, session_clients, session_events, commits, cutoff_rules, stream_entries'))

const end = async (count: number): Promise<string[]> => {
  const ids = Array.from({ length: count }, () => randomUUID())
  await seedSessions(api.database.sql, ids.map((id) => ({ id, issuer: api.issuer.url })))
  await terminateSessions(api.db, ids.map((id) => command(id, { issuers: [api.issuer.url] })))
  return ids
}
const setRule = () => insertRule(api.db, {
  id: randomUUID(), issuer: api.issuer.url, organization: 'o9', user: null, bornBefore: null, excludeUsers: [], excludeSessions: [],
  reason: 'test', actor: { issuer: api.issuer.url, subject: 'admin' }, revocationId: null,
}, { lifetimeSeconds: 3_600 })

const get = (path: string, headers: Record<string, string> = {}) => fetch(`${base}${path}`, { headers: { authorization: reader, ...headers } })
const snapshot = async () => {
  const lines = (await (await get('/v1/stream/snapshot')).text()).trim().split('\n').map((line) => JSON.parse(line) as object)
  const entries = lines.slice(1, -1) as EntryOnTheWire[]
  return { head: lines[0] as SnapshotHead, entries, last: lines.at(-1), ids: idsOf(entries) }
}
const idsOf = (entries: readonly EntryOnTheWire[]) => entries.flatMap(({ ended = [] }) => ended.flatMap(({ sessionIds }) => sessionIds))
const tail = async (after: string, wait = 0) => {
  const response = await get(`/v1/stream?after=${after}&wait=${wait}`)
  return { status: response.status, body: (await response.json()) as { position: string; entries: EntryOnTheWire[] } }
}

describe('the stream over HTTP', () => {
  it('gives a snapshot of what is in force, and after it exactly what came later', async () => {
    const before = await end(3)
    await setRule()
    const { head, ids, entries, last } = await snapshot()
    expect(ids.toSorted()).toEqual(before.toSorted())
    expect(entries.flatMap(({ rules = [] }) => rules)).toMatchObject([{ organization: 'o9', user: null, excludeUsers: [] }])
    expect(last).toEqual({ done: true })
    const after = await end(2)
    const { body } = await tail(head.position)
    expect(idsOf(body.entries).filter((id) => !before.includes(id)).toSorted()).toEqual(after.toSorted())
    expect((await tail(body.position)).body.entries).toEqual([])
    await setRule()
    const told = await tail(body.position)
    expect(told.body.entries).toMatchObject([{ rules: [{ organization: 'o9' }] }])
  })

  it('names a session by its id and by every other sid that participants know it by', async () => {
    const { head } = await snapshot()
    const clients = ['own', 'own/app', 'own/app', 'own/shop'].map((sid, n) => ({ clientId: `app${n}`, sid }))
    await seedSessions(api.database.sql, [{ id: 'own', issuer: api.issuer.url, clients }])
    await terminateSessions(api.db, [command('own', { issuers: [api.issuer.url] })])
    const told = ['own', 'own/app', 'own/shop']
    expect(idsOf((await tail(head.position)).body.entries).toSorted()).toEqual(told)
    expect((await snapshot()).ids.toSorted()).toEqual(told)
  })

  it('names the sid of a participant that came after the end', async () => {
    const [id = ''] = await end(1)
    await givePositions(api.db)
    const { head } = await snapshot()
    const { body } = await tail(head.position)
    expect(body.entries).toEqual([])
    const authorization = await api.bearer({ permissions: ['session.write'] })
    const late = () => fetch(`${base}/v1/sessions/${id}/clients/late`, { method: 'PUT', headers: { authorization }, body: JSON.stringify({ sid: 'late' }) })
    expect((await late()).status).toBe(409)
    const told = await tail(body.position)
    expect(idsOf(told.body.entries).toSorted()).toEqual([id, 'late'].toSorted())
    expect((await snapshot()).ids.toSorted()).toEqual([id, 'late'].toSorted())
    expect((await late()).status).toBe(409)
    expect((await tail(told.body.position)).body.entries).toEqual([])
  })

  it('leaves out what has expired with all its tokens', async () => {
    const [id = '', old = ''] = await end(2)
    await api.database.sql.query('ALTER TABLE sessions DISABLE TRIGGER USER')
    await api.database.sql.query(`UPDATE sessions SET expires_at = now() - interval '2 hours', terminated_at = now() - interval '2 hours' WHERE id = $1`, [old])
    await api.database.sql.query('ALTER TABLE sessions ENABLE TRIGGER USER')
    expect((await snapshot()).ids).toEqual([id])
  })

  it('holds a long poll until something comes', async () => {
    const { head } = await snapshot()
    const polled = tail(head.position, 10)
    const ids = await end(1)
    expect(idsOf((await polled).body.entries)).toEqual(ids)
  })

  it('sends server-sent events, says how fresh they are, and goes on after the last one seen', async () => {
    const { head } = await snapshot()
    const stop = new AbortController()
    const response = await fetch(`${base}/v1/stream?after=${head.position}`, { signal: stop.signal, headers: { authorization: reader, accept: 'text/event-stream' } })
    expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8')
    const first = await end(1)
    let seen: string | null = null
    let freshest: { lagMs: number } | null = null
    if (response.body !== null) for await (const { event, id, data } of eventsOf(response.body)) {
      if (event === 'fresh') freshest = JSON.parse(data) as { lagMs: number }
      if (event !== 'entry') continue
      expect(idsOf([JSON.parse(data) as EntryOnTheWire])).toEqual(first)
      seen = id
      break
    }
    stop.abort()
    expect(freshest?.lagMs).toBeLessThan(2_000)
    const second = await end(1)
    const again = await get(`/v1/stream?after=${head.position}&wait=5`, { 'last-event-id': seen ?? '' })
    expect(idsOf(((await again.json()) as { entries: EntryOnTheWire[] }).entries)).toEqual(second)
  })

  it.each(['', 'nonsense', 'ffff-1-1', 'x'.repeat(64)])('refuses the position %j', async (after) => {
    expect((await tail(after)).status).toBe(after === '' ? 400 : 410)
  })

  it('refuses a position that lies ahead, or so far back that entries are gone', async () => {
    await end(1)
    await givePositions(api.db)
    const { head } = await snapshot()
    const [epoch = '', position = ''] = head.position.split('-')
    expect((await tail(`${epoch}-${Number(position) + 1}-0`)).status).toBe(410)
    await api.database.sql.query('INSERT INTO stream_entries SELECT -1, position + 200000 FROM stream_entries')
    expect((await tail(head.position)).status).toBe(410)
    expect(await pruneEntries(api.db)).toBe(1)
    expect((await readHead(api.db)).position).toBe(Number(position) + 200_000)
  })

  it('G6: is for readers of the whole instance alone', async () => {
    for (const claims of [{ permissions: ['session.delete'] }, { permissions: ['session.read'], org: 'o1' }]) {
      const headers = { authorization: await api.bearer(claims) }
      for (const path of ['/v1/stream/snapshot', '/v1/stream?after=1-1-1']) expect((await fetch(`${base}${path}`, { headers })).status).toBe(403)
    }
    expect((await fetch(`${base}/v1/stream/snapshot`)).status).toBe(401)
  })
})

describe('positions', () => {
  it('come in the order in which readers can see them, however commits and sequencers race', async () => {
    const writers = Array.from({ length: 6 }, async () => {
      for (let n = 0; n < 15; n += 1) await end(1)
    })
    let writing = true
    const done = Promise.all(writers).finally(() => { writing = false })
    const sequencers = Array.from({ length: 2 }, async () => {
      while (writing) await givePositions(api.db)
    })
    const seen: string[] = []
    let at = 0
    const read = async () => {
      for (;;) {
        const entries = (await readEntries(api.db, { after: at, to: (await readHead(api.db)).position, maxTokenLifetimeSeconds: 60 })) ?? []
        if (entries.length === 0) return
        seen.push(...idsOf(entries))
        at = entries.at(-1)?.position ?? at
      }
    }
    while (writing) await read()
    await done
    await Promise.all(sequencers)
    await givePositions(api.db)
    await read()
    const { rows } = await api.database.sql.query(`SELECT id FROM sessions WHERE state = 'terminated'`)
    expect(rows).toHaveLength(90)
    expect(seen.toSorted()).toEqual(rows.map(({ id }) => id as string).toSorted())
  })

  it('are not held up by a transaction that someone leaves open, nor by locked commits', async () => {
    const holder = await api.database.sql.connect()
    await holder.query('BEGIN')
    await holder.query('INSERT INTO commits (sessions) VALUES (1)')
    const ids = await end(1)
    const locker = await api.database.sql.connect()
    await locker.query('BEGIN')
    await locker.query('SELECT FROM commits FOR UPDATE')
    await givePositions(api.db)
    const head = await readHead(api.db)
    expect(idsOf((await readEntries(api.db, { after: 0, to: head.position, maxTokenLifetimeSeconds: 60 })) ?? [])).toEqual(ids)
    await locker.query('ROLLBACK')
    locker.release()
    await holder.query('COMMIT')
    holder.release()
    await givePositions(api.db)
    expect((await readHead(api.db)).position).toBeGreaterThan(head.position)
  })

  it('need no rights that an ordinary role lacks', async () => {
    await api.database.sql.query(`CREATE ROLE plain_${process.pid}; GRANT SELECT ON stream_entries, cutoff_rules TO plain_${process.pid}`)
    const client = await api.database.sql.connect()
    await client.query(`SET ROLE plain_${process.pid}`)
    const { rows } = await client.query('SELECT (SELECT system_identifier FROM pg_control_system()) AS s, (SELECT timeline_id FROM pg_control_checkpoint()) AS t')
    expect(rows).toHaveLength(1)
    await client.query('RESET ROLE')
    client.release()
    await api.database.sql.query(`DROP OWNED BY plain_${process.pid}; DROP ROLE plain_${process.pid}`)
  })
})

describe('who follows over HTTP', () => {
  it('tells a guard at once, takes its count of attempts, and lets it go when the server stops', async () => {
    const own = await startApi()
    const url = `http://127.0.0.1:${await own.listen()}`
    const [, token = ''] = (await own.bearer({ permissions: ['session.read'] })).split(' ')
    const guard = await createGuard({ url, token, startWithinMs: 5_000 })
    expect(guard.staleMs).toBeLessThan(5_000)
    await seedSessions(own.database.sql, [{ id: 's1', issuer: own.issuer.url }])
    await terminateSessions(own.db, [command('s1', { issuers: [own.issuer.url] })])
    const question = { issuer: own.issuer.url, sessionId: 's1' }
    await vi.waitUntil(() => guard.check(question) === 'terminated', { timeout: 10_000, interval: 5 })
    const tries = 1 + [1, 2, 3].filter(() => guard.check(question) === 'terminated').length
    await guard.close()
    const answer = await fetch(`${url}/v1/attempts?sessionId=s1`, { headers: { authorization: `Bearer ${token}` } })
    expect(JSON.stringify(await answer.json())).toContain(`"${tries}"`)
    const follower = await createGuard({ url, token, startWithinMs: 5_000 })
    const since = performance.now()
    await own.close()
    expect(performance.now() - since).toBeLessThan(5_000)
    await follower.close()
  })

  it('ends the connection of a token whose own session has ended', async () => {
    await seedSessions(api.database.sql, [{ id: 'own', issuer: api.issuer.url }])
    const authorization = await api.bearer({ permissions: ['session.read'], sid: 'own' })
    const { head } = await snapshot()
    const response = await fetch(`${base}/v1/stream?after=${head.position}`, { headers: { authorization, accept: 'text/event-stream' } })
    await terminateSessions(api.db, [command('own', { issuers: [api.issuer.url] })])
    // Ends by itself, whatever it says before.
    if (response.body !== null) for await (const { event } of eventsOf(response.body)) expect(['clock', 'entry', 'fresh']).toContain(event)
    expect((await fetch(`${base}/v1/stream/snapshot`, { headers: { authorization } })).status).toBe(401)
  })
})
