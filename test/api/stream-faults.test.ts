/** The stream over HTTP where clients leave, snapshots are long and entries are large. */
import { once } from 'node:events'
import { connect } from 'node:net'
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, expect, it, vi } from 'vitest'
import { createGuard } from '../../src/client/index.ts'
import { eventsOf } from '../../src/client/lines.ts'
import type { EntryOnTheWire, FreshOnTheWire } from '../../src/client/wire.ts'
import { readRulesAfter } from '../../src/store/cutoff-rules.ts'
import { givePositions, readEntries, readHead, readRetold, readTombstones } from '../../src/store/stream.ts'
import { terminateSessions } from '../../src/store/terminations.ts'
import { createTelemetry } from '../../src/telemetry.ts'
import { command } from '../harness/seed.ts'
import { startApi } from './api.ts'
import type { TestApi } from './api.ts'

let api: TestApi
let base: string
let authorization: string
let holdHead: Promise<void>

beforeAll(async () => {
  holdHead = Promise.resolve()
  api = await startApi({
    change: {
      stream: {
        readHead: async () => {
          await holdHead
          return readHead(api.db)
        },
        givePositions: () => givePositions(api.db),
        readEntries: (asked) => readEntries(api.db, { ...asked, maxTokenLifetimeSeconds: 3_600 }),
        readTombstones: ({ before, sinceMsAgo }) => readTombstones(api.db, { before, sinceMs: sinceMsAgo === null ? 0 : Date.now() - sinceMsAgo, maxTokenLifetimeSeconds: 3_600 }),
        readRetold: ({ sinceMsAgo, after }) => readRetold(api.db, { sinceMs: Date.now() - sinceMsAgo, after, maxTokenLifetimeSeconds: 3_600 }),
        readRulesAfter: (asked) => readRulesAfter(api.db, asked),
        log: createTelemetry({ level: 'silent' }).log,
      },
    },
  })
  authorization = await api.bearer({ permissions: ['session.read'] })
  base = `http://127.0.0.1:${await api.listen()}`
})
afterAll(async () => {
  // A connection that was made and never used is not idle to Node; the service cuts those too.
  api.app.server.closeAllConnections()
  await api.close()
})
// Not TRUNCATE, which waits for the feed's readers, and they for it.
beforeEach(() => api.database.sql.query(['sessions', 'session_events', 'commits', 'cutoff_rules', 'stream_entries'].map((table) => `DELETE FROM ${table}`).join('; ')))

const get = (path: string, headers: Record<string, string> = {}) => fetch(`${base}${path}`, { headers: { authorization, ...headers } })
const idsOf = ({ ended = [] }: EntryOnTheWire) => ended.flatMap(({ sessionIds }) => sessionIds)
/** Sessions of one commit. */
const end = async (count: number): Promise<string[]> => {
  const ids = Array.from({ length: count }, () => randomUUID())
  await api.database.sql.query(
    `INSERT INTO sessions (id, issuer, user_id, resource_owner, sequence, registration_hash, creator_issuer, creator_subject, born, created_at, change_date, expires_at)
     SELECT id, $2, 'u1', 'o1', 1, 'x', 'x', 'x', now(), now(), now(), now() + interval '1 hour' FROM unnest($1::text[]) id`, [ids, api.issuer.url])
  await terminateSessions(api.db, ids.map((id) => command(id, { issuers: [api.issuer.url] })))
  await givePositions(api.db)
  return ids
}

it('gives the place of a snapshot back whose reader left before it began', async () => {
  let goOn = () => {}
  holdHead = new Promise((resolve) => { goOn = resolve })
  const { port } = new URL(base)
  for (let n = 0; n < 4; n += 1) {
    const socket = connect(Number(port), '127.0.0.1')
    await once(socket, 'connect')
    socket.write(`GET /v1/stream/snapshot HTTP/1.1\r\nhost: x\r\nauthorization: ${authorization}\r\n\r\n`)
    await vi.waitUntil(async () => (await get('/v1/attempts?sessionId=x')).ok, { timeout: 10_000 })
    socket.destroy()
  }
  await vi.waitUntil(async () => (await get('/v1/attempts?sessionId=x')).ok, { timeout: 10_000 })
  goOn()
  holdHead = Promise.resolve()
  await vi.waitFor(async () => expect((await get('/v1/stream/snapshot')).status).toBe(200), { timeout: 3_000 })
})

it('says something for each page of a snapshot, so that a long walk through what has expired is not taken for silence', async () => {
  await end(1)
  await api.database.sql.query(`ALTER TABLE sessions DISABLE TRIGGER USER;
    UPDATE sessions SET expires_at = now() - interval '2 hours', terminated_at = now() - interval '2 hours'; ALTER TABLE sessions ENABLE TRIGGER USER`)
  const lines = (await (await get('/v1/stream/snapshot')).text()).split('\n')
  expect(lines.slice(1)).toEqual(['', '{"done":true}', ''])
})

it('tells who knows nearly all already only what came since, the late sids of what is older among it', async () => {
  const [old = '', late = ''] = [...(await end(1)), ...(await end(1))]
  const writer = await api.bearer({ permissions: ['session.write'] })
  await fetch(`${base}/v1/sessions/${late}/clients/app`, { method: 'PUT', headers: { authorization: writer }, body: JSON.stringify({ sid: 'late' }) })
  // A page of commits is told whole, and the last page too: more than two pages lie between.
  await api.database.sql.query(`INSERT INTO commits (sessions) SELECT 0 FROM generate_series(1, 1100)`)
  await api.database.sql.query(`UPDATE commits SET committed_at = committed_at - interval '1 hour'`)
  const [id = ''] = await end(1)
  const idsIn = async (query: string) =>
    (await (await get(`/v1/stream/snapshot${query}`)).text()).trim().split('\n').slice(1, -1).filter((line) => line !== '').flatMap((line) => idsOf(JSON.parse(line) as EntryOnTheWire))
  expect((await idsIn('')).toSorted()).toEqual([old, late, 'late', id].toSorted())
  expect((await idsIn('?known=7200000')).filter((one) => one === old)).toEqual([old])
  expect(new Set(await idsIn('?known=1000'))).toEqual(new Set([id, late, 'late']))
  expect((await get('/v1/stream/snapshot?known=-1')).status).toBe(400)
})

it('goes on telling a guard when the epoch is another: what it knew it knows, and what comes it learns', async () => {
  const guard = await createGuard({ url: base, token: authorization.split(' ')[1] ?? '', startWithinMs: 5_000 })
  const check = (sessionId: string) => guard.check({ issuer: api.issuer.url, sessionId })
  const [before = ''] = await end(1)
  await vi.waitUntil(() => check(before) === 'terminated', { timeout: 10_000, interval: 5 })
  await api.database.sql.query(`
    BEGIN; CREATE TABLE anew (LIKE stream_entries INCLUDING ALL); ALTER SEQUENCE stream_position_seq OWNED BY NONE; ALTER SEQUENCE stream_entries_id_seq OWNED BY NONE;
    DROP TABLE stream_entries; ALTER TABLE anew RENAME TO stream_entries; COMMIT`)
  const [after = ''] = await end(1)
  await vi.waitUntil(() => check(after) === 'terminated', { timeout: 15_000, interval: 5 })
  expect(check(before)).toBe('terminated')
  await vi.waitUntil(() => guard.staleMs < 2_000, { timeout: 15_000, interval: 20 })
  await guard.close()
})

it('cuts long entries and pages, and who comes back in the middle of one is told all of it', async () => {
  const head = (JSON.parse((await (await get('/v1/stream/snapshot')).text()).split('\n')[0] ?? '') as { position: string }).position
  const ids = await end(2_500)
  const snapshot = (await (await get('/v1/stream/snapshot')).text()).trim().split('\n').slice(1, -1).map((line) => JSON.parse(line) as EntryOnTheWire)
  expect(snapshot.map((entry) => idsOf(entry).length)).toEqual([1_000, 1_000, 500])
  const follow = async (after: string, enough: (entries: number) => boolean) => {
    const stop = new AbortController()
    const { body } = await fetch(`${base}/v1/stream?after=${after}`, { signal: stop.signal, headers: { authorization, accept: 'text/event-stream' } })
    const entries: { id: string | null; ids: string[] }[] = []
    let told = 0
    if (body !== null) for await (const { event, id, data } of eventsOf(body)) {
      if (event === 'entry') entries.push({ id, ids: idsOf(JSON.parse(data) as EntryOnTheWire) })
      if (event === 'fresh') told = (JSON.parse(data) as FreshOnTheWire).entries
      if (enough(entries.length) || (event === 'fresh' && entries.length > 0)) break
    }
    stop.abort()
    return { entries, told }
  }
  const whole = await follow(head, () => false)
  expect(whole.entries.map((entry) => entry.ids.length)).toEqual([1_000, 1_000, 500])
  expect(whole.entries.flatMap((entry) => entry.ids).toSorted()).toEqual(ids.toSorted())
  expect(whole.told).toBe(3)
  const broken = await follow(head, (entries) => entries === 2)
  const rest = await follow(broken.entries.at(-1)?.id ?? '', () => false)
  expect(rest.entries.flatMap((entry) => entry.ids).toSorted()).toEqual(ids.toSorted())
  const after = await (await get(`/v1/stream?after=${whole.entries.at(-1)?.id ?? ''}`)).json()
  expect(after).toMatchObject({ entries: [] })
})

it('tells its clock before anything else, so that a long way to the present makes nobody older than he is', async () => {
  const head = (JSON.parse((await (await get('/v1/stream/snapshot')).text()).split('\n')[0] ?? '') as { position: string }).position
  await end(1)
  const stop = new AbortController()
  const { body } = await fetch(`${base}/v1/stream?after=${head}`, { signal: stop.signal, headers: { authorization, accept: 'text/event-stream' } })
  const told = []
  if (body !== null) for await (const { event, data } of eventsOf(body)) {
    told.push({ event, at: (JSON.parse(data) as { atMs?: number }).atMs })
    if (event === 'fresh') break
  }
  stop.abort()
  expect(told.map(({ event }) => event)).toEqual(['clock', 'entry', 'fresh'])
  expect(told[0]?.at).toBeLessThanOrEqual(told[2]?.at ?? 0)
})
