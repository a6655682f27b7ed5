import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { insertRevocation } from '../../src/store/revocations.ts'
import { openDatabase } from '../../src/store/postgres.ts'
import type { Database } from '../../src/store/postgres.ts'
import { createTelemetry } from '../../src/telemetry.ts'
import { uuidV7 } from '../../src/termination/uuid-v7.ts'
import { createPruning } from '../../src/upkeep/prune.ts'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'
import { ISSUER } from '../harness/seed.ts'

const DAY = 86_400
let database: TestDatabase
let db: Database
beforeAll(async () => {
  database = await createDatabase()
  db = openDatabase({ url: database.url, name: 'test', max: 2 })
})
afterAll(async () => {
  await db.$disconnect()
  await database.drop()
})
beforeEach(() => database.sql.query('TRUNCATE revocations, revocation_outcomes, commits, deliveries, idempotency_keys CASCADE'))

const sql = (text: string, values: unknown[] = []) => database.sql.query(text, values)
const make = async (ageDays: number, state: 'done' | 'cancelled' | 'running' | 'paused' = 'done'): Promise<string> => {
  const id = uuidV7(Date.now() - ageDays * DAY * 1_000)
  await insertRevocation(db, {
    id, mode: 'revoke', reason: 'test', ticket: null, actor: { issuer: ISSUER, subject: 'admin' }, issuers: [ISSUER], reach: 'instance',
    filter: { resourceOwners: [], userIds: [], sessionIds: ['s'], clientIds: [], fingerprintIds: [], ips: [], bornBefore: null, bornAfter: null, includeExpired: false, all: false },
    exclude: { userIds: [], sessionIds: [] }, containment: 'rows', deliveriesPerSecond: null, expected: 0, expectedExact: true, reachesBorn: null,
  })
  await sql(
    `UPDATE revocations SET state = $2::revocation_state, committed_at = CASE WHEN $2 = 'done' THEN now() - make_interval(days => $3) END,
       created_at = now() - make_interval(days => $3), changed_at = now() - make_interval(days => $3) WHERE id = $1`, [id, state, ageDays])
  await sql(`INSERT INTO revocation_slices (revocation_id, number, walks, start_key, until_key, at_key) VALUES ($1, 1, 'ids', '{}', '{}', '{}')`, [id])
  await sql(`INSERT INTO revocation_outcomes (revocation_id, receiver_id) VALUES ($1, 'r')`, [id])
  return id
}
const prune = async () => {
  const pruning = createPruning({ db, deliverySeconds: 30 * DAY, sessionSeconds: 400 * DAY, maxTokenLifetimeSeconds: DAY, log: createTelemetry({ level: 'silent' }).log })
  const removed = await pruning.turn()
  await pruning.stop()
  return removed
}
const left = async (): Promise<string[]> => (await sql('SELECT id::text AS id FROM revocations ORDER BY id')).rows.map(({ id }) => id as string)

it('removes revocations that were over before the retention, with all that belongs to them', async () => {
  await make(401)
  await make(401, 'cancelled')
  const kept = [await make(500, 'running'), await make(450, 'paused'), await make(399)]
  expect(await prune()).toBe(2)
  expect(await left()).toEqual(kept)
  for (const table of ['revocation_slices', 'revocation_events', 'revocation_outcomes', 'revocation_notifications']) {
    const { rows } = await sql(`SELECT DISTINCT revocation_id::text AS id FROM ${table} ORDER BY id`)
    expect(rows.map(({ id }) => id as string), table).toEqual(kept)
  }
})

it('leaves a revocation while a commit or a delivery of it is there', async () => {
  const [committed, told] = [await make(402), await make(401)]
  await sql('INSERT INTO commits (sessions, revocation_id, routed_at, enforced_at, enforced_again_at) VALUES (1, $1, now(), now(), now())', [committed])
  await sql(`INSERT INTO receivers (id, type, url, client_id) VALUES ('r', 'backchannel_logout', 'https://r.example', 'c')`)
  await sql(`INSERT INTO deliveries (receiver_id, session_id, client_id, sid, sub, issuer, state, moot_at, revocation_id) VALUES ('r', 's', 'c', 's', 'u', 'i', 'pending', now(), $1)`, [told])
  expect(await prune()).toBe(0)
  expect(await left()).toEqual([committed, told])
  await sql('DELETE FROM commits')
  await sql('DELETE FROM deliveries')
  expect(await prune()).toBe(2)
})

it('finds what is old behind hundreds that must stay', async () => {
  const staying = []
  for (let n = 0; n < 150; n += 1) staying.push(await make(500, 'paused'))
  await make(401)
  expect(await prune()).toBe(1)
  expect(await left()).toHaveLength(staying.length)
})

it('forgets idempotency keys after a day', async () => {
  const id = await make(0)
  await sql(
    `INSERT INTO idempotency_keys (issuer, subject, route, key, request_hash, revocation_id, created_at)
     SELECT 'i', 's', 'r', n::text, '', $1, now() - make_interval(hours => n) FROM generate_series(1, 48) n`, [id])
  expect(await prune()).toBe(25)
  expect((await sql('SELECT key FROM idempotency_keys')).rows).toHaveLength(23)
})
