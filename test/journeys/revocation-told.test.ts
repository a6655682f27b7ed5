/** A revocation and those who are told of it: paced, paused, a worker killed in the middle, and every outcome accounted for; with real processes. */
import { decodeJwt } from 'jose'
import { Webhook } from 'standardwebhooks'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { revocationCompletedEvent } from '../../src/api/webhook-document.ts'
import { startIssuer } from '../harness/issuer.ts'
import type { TestIssuer } from '../harness/issuer.ts'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'
import { settingsFor, startProcess } from '../harness/processes.ts'
import type { ServiceProcess } from '../harness/processes.ts'
import { startReceiver } from '../harness/receiver.ts'
import type { TestReceiver } from '../harness/receiver.ts'

const SESSIONS = 300
const OF_A_USER = 3

let database: TestDatabase
let issuer: TestIssuer
let api: ServiceProcess
let worker: ServiceProcess
let settings: Record<string, string>
let token: string
let [bySid, byUser, hook]: TestReceiver[] = []
beforeAll(async () => {
  ;[database, issuer, bySid, byUser, hook] = await Promise.all([createDatabase(), startIssuer(), startReceiver(), startReceiver(), startReceiver()])
  settings = settingsFor({ databaseUrl: database.url, redisUrl: null, issuers: [issuer.entry()] })
  ;[api, worker] = await Promise.all([startProcess({ ...settings, ROLES: 'api' }), startProcess({ ...settings, ROLES: 'worker' })])
  token = await issuer.token({ sub: 'responder', permissions: ['revocation.write', 'revocation.read', 'receiver.read', 'receiver.write'] })
})
afterAll(async () => {
  await Promise.all([api.stop(), worker.stop()])
  await Promise.all([issuer.close(), bySid?.close(), byUser?.close(), hook?.close()])
  await database.drop()
})

interface Operation {
  readonly name: string
  readonly done: boolean
  readonly metadata: { readonly notifications: string; readonly acknowledgedTime: string | null; readonly deliveries: Record<string, string> }
}
const call = async <T = Operation>(method: string, path: string, body?: object): Promise<T> => {
  const answer = await fetch(`${api.apiUrl}${path}`, { method, headers: { authorization: `Bearer ${token}` }, ...(body === undefined ? {} : { body: JSON.stringify(body) }) })
  if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`)
  return (await answer.json()) as T
}

it('G5, G9, G11: tells everyone concerned once, as it is steered, whatever dies, and the counts say so', async () => {
  await call('PUT', '/v1/receivers/by-sid', { type: 'backchannel_logout', url: bySid?.url, clientId: 'app' })
  await call('PUT', '/v1/receivers/by-user', { type: 'backchannel_logout', url: byUser?.url, clientId: 'app', subject: 'sub' })
  const { secret } = await call<{ secret: string }>('PUT', '/v1/receivers/hook', { type: 'webhook', url: hook?.url, resourceOwner: 'o1', events: ['revocation.completed'] })
  await database.sql.query(
    `WITH s AS (
       INSERT INTO sessions (id, issuer, user_id, resource_owner, sequence, registration_hash, creator_issuer, creator_subject, born, created_at, change_date, expires_at)
       SELECT 's' || n, $1, 'u' || n / ${OF_A_USER}, 'o1', 1, 'seed', $1, 'seeder', now(), now(), date_trunc('milliseconds', now()), now() + interval '1 hour'
       FROM generate_series(0, ${SESSIONS - 1}) n RETURNING id, user_id
     ), e AS (
       INSERT INTO session_events (session_id, sequence, type, actor_issuer, actor_subject, resource_owner, created_at)
       SELECT id, 1, 'session.added', $1, 'seeder', 'o1', now() FROM s
     )
     INSERT INTO session_clients SELECT id, 'app', id, user_id FROM s`, [issuer.url])

  const { name } = await call('POST', '/v1/revocations', { filter: { resourceOwners: ['o1'] }, reason: 'stolen laptops', ticket: 'INC-7', pacing: { deliveriesPerSecond: 100 } })
  await expect.poll(() => bySid?.requests.length, { timeout: 20_000 }).toBeGreaterThan(5)
  expect((await call('POST', `/v1/${name}:pause`, { only: 'notifications' })).metadata.notifications).toBe('paused')
  // What was in hand is still told; then nothing more is.
  const due = async () => (await database.sql.query(`SELECT FROM deliveries WHERE state = 'pending' AND due_at < 'infinity'`)).rowCount
  await expect.poll(due, { timeout: 20_000 }).toBe(0)
  expect(bySid?.requests.length).toBeLessThan(SESSIONS)
  await worker.kill()
  await call('POST', `/v1/${name}:resume`, { only: 'notifications' })
  worker = await startProcess({ ...settings, ROLES: 'worker' })

  const all = SESSIONS + SESSIONS / OF_A_USER + 1
  await expect.poll(async () => (await call('GET', `/v1/${name}`)).metadata.deliveries, { timeout: 40_000, interval: 200 })
    .toEqual({ total: String(all), acknowledged: String(all), pending: '0', failed: '0', moot: '0' })
  const { done, metadata } = await call('GET', `/v1/${name}`)
  expect(done).toBe(true)
  expect(metadata.acknowledgedTime).not.toBeNull()
  // A worker that was killed may have told of some without saying so; nobody was left out.
  expect(new Set(bySid?.tokens().map((text) => decodeJwt(text)['sid'])).size).toBe(SESSIONS)
  expect(new Set(byUser?.tokens().map((text) => decodeJwt(text).sub)).size).toBe(SESSIONS / OF_A_USER)
  const [told] = hook?.requests ?? []
  const event = revocationCompletedEvent.parse(new Webhook(secret).verify(told?.body ?? '', told?.headers as Record<string, string>))
  expect(event.data).toMatchObject({ revocation: name, ticket: 'INC-7', sessions: { matched: String(SESSIONS), terminated: String(SESSIONS) } })
}, 120_000)
