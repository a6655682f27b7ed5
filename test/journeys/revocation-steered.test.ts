/** A responder who changes their mind: thousands of sessions, paused, looked at, gone on with, and the rest cancelled; over HTTP, with real processes. */
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { eventsOf } from '../../src/client/lines.ts'
import { startIssuer } from '../harness/issuer.ts'
import type { TestIssuer } from '../harness/issuer.ts'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'
import { settingsFor, startProcess } from '../harness/processes.ts'
import type { ServiceProcess } from '../harness/processes.ts'

const SESSIONS = 50_000

let database: TestDatabase
let issuer: TestIssuer
let api: ServiceProcess
let worker: ServiceProcess
let token: string
beforeAll(async () => {
  ;[database, issuer] = await Promise.all([createDatabase(), startIssuer()])
  const settings = { ...settingsFor({ databaseUrl: database.url, redisUrl: null, issuers: [issuer.entry()] }), RATE_LIMIT_CALLER: '10000' }
  ;[api, worker] = await Promise.all([startProcess({ ...settings, ROLES: 'api' }), startProcess({ ...settings, ROLES: 'worker' })])
  token = await issuer.token({ sub: 'responder', permissions: ['revocation.write', 'revocation.read'] })
})
afterAll(async () => {
  await Promise.all([api.stop(), worker.stop()])
  await Promise.all([issuer.close(), database.drop()])
})

interface Seen {
  readonly name: string
  readonly done: boolean
  readonly previewToken: string
  readonly metadata: { readonly state: string; readonly sessions: { readonly matched: string; readonly terminated: string } }
}
const call = async (method: string, path: string, body?: object): Promise<Seen> => {
  const answer = await fetch(`${api.apiUrl}${path}`, { method, headers: { authorization: `Bearer ${token}` }, ...(body === undefined ? {} : { body: JSON.stringify(body) }) })
  if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`)
  return (await answer.json()) as Seen
}
const seed = (organization: string) =>
  database.sql.query(
    `INSERT INTO sessions (id, issuer, user_id, resource_owner, sequence, registration_hash, creator_issuer, creator_subject, ip, born, created_at, change_date, expires_at)
     SELECT $1 || n, $2, 'u' || n, $1, 1, 'seed', $2, 'seeder', '10.0.0.1', now(), now(), date_trunc('milliseconds', now()), now() + interval '1 hour'
     FROM generate_series(1, $3::int) n`, [organization, issuer.url, SESSIONS])
const endedBy = async (name: string): Promise<number> => {
  const { rows } = await database.sql.query<{ n: number }>(
    `SELECT count(*)::int AS n FROM session_events WHERE revocation_id = $1 AND type = 'session.terminated'`, [name.replace('revocations/', '')])
  return rows[0]?.n ?? 0
}
/** By address, so that no rule contains it and it can be steered. */
const accept = async (organization: string): Promise<string> => {
  const asked = { filter: { resourceOwners: [organization], ips: ['10.0.0.0/8'] }, reason: 'stolen laptop' }
  const { previewToken } = await call('POST', '/v1/revocations', { ...asked, validateOnly: true })
  return (await call('POST', '/v1/revocations', { ...asked, previewToken })).name
}
const untilBegun = (name: string) =>
  vi.waitFor(async () => expect(Number((await call('GET', `/v1/${name}`)).metadata.sessions.terminated)).toBeGreaterThan(0), { timeout: 20_000, interval: 5 })

it('G9: what is answered as paused ends nothing more, its counts are exact, and going on ends the rest once', async () => {
  await seed('o1')
  const name = await accept('o1')
  await untilBegun(name)
  const paused = await call('POST', `/v1/${name}:pause`)
  const ended = await endedBy(name)
  expect(paused.metadata.state).toBe('paused')
  expect([paused.metadata.sessions.terminated, paused.metadata.sessions.matched]).toEqual([String(ended), String(ended)])
  expect(ended).toBeLessThan(SESSIONS)
  // The worker has been told of all this, and has looked.
  await call('POST', `/v1/${name}:pause`)
  expect(await endedBy(name)).toBe(ended)

  await call('POST', `/v1/${name}:resume`)
  const response = await fetch(`${api.apiUrl}/v1/${name}/progress`, { headers: { authorization: `Bearer ${token}` } })
  const counts: number[] = []
  if (response.body === null) throw new Error('There is no progress')
  for await (const { event, data } of eventsOf(response.body)) {
    if (event === 'done') break
    counts.push(Number((JSON.parse(data) as Seen).metadata.sessions.terminated))
  }
  expect(counts).toEqual(counts.toSorted((one, other) => one - other))
  expect(counts.at(-1)).toBe(SESSIONS)
  const done = await call('GET', `/v1/${name}?wait=30s`)
  expect(done).toMatchObject({ done: true, response: { remaining: '0' }, metadata: { sessions: { expected: String(SESSIONS), matched: String(SESSIONS), terminated: String(SESSIONS) } } })
  expect(await endedBy(name)).toBe(SESSIONS)
}, 90_000)

it('what is cancelled leaves the rest alive, and says how many ended', async () => {
  await seed('o2')
  const name = await accept('o2')
  await untilBegun(name)
  const cancelled = await call('POST', `/v1/${name}:cancel`)
  const ended = await endedBy(name)
  expect(cancelled).toMatchObject({ done: true, error: { code: 1 }, metadata: { state: 'cancelled', sessions: { terminated: String(ended) } } })
  const { rows } = await database.sql.query<{ n: number }>(`SELECT count(*)::int AS n FROM sessions WHERE resource_owner = 'o2' AND state = 'active'`)
  expect(rows[0]?.n).toBe(SESSIONS - ended)
  expect(await call('GET', `/v1/${name}?wait=30s`)).toMatchObject({ metadata: { sessions: { terminated: String(ended) } } })
}, 60_000)
