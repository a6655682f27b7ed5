import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readDue } from '../../src/store/drains.ts'
import type { DrainCursor } from '../../src/store/drains.ts'
import { openDatabase } from '../../src/store/postgres.ts'
import type { Database } from '../../src/store/postgres.ts'
import { ISSUER } from '../harness/seed.ts'
import { openGround } from './ground.ts'
import type { Ground } from './ground.ts'

const BACKLOG = 5_000
const SLICE = 100

describe('reading a backlog', () => {
  let ground: Ground
  let db: Database
  beforeAll(async () => {
    ground = await openGround()
    // One connection, so that what it read can be asked of it.
    db = openDatabase({ url: ground.database.url, name: 'reader', max: 1 })
    await ground.put('behind', { url: 'https://rp.example/logout' })
  })
  afterAll(async () => {
    await db.$disconnect()
    await ground.close()
  })

  const entriesRead = async (): Promise<number> => {
    await db.$queryRawUnsafe('SELECT pg_stat_force_next_flush()::text')
    await db.$queryRawUnsafe('SELECT 1')
    const { rows } = await ground.sql.query<{ read: number }>(`SELECT sum(idx_tup_read)::int AS read FROM pg_stat_user_indexes WHERE relname = 'deliveries'`)
    return rows[0]?.read ?? 0
  }

  it.each([
    ['of log-outs', null],
    ['of a revocation', '018f62b9-90c1-7d3c-8d51-3f0f5a7f0f11'],
  ])('costs each slice a slice, also by a plan from when there was no backlog, and meets each delivery once: %s', async (_, revocation) => {
    await ground.sql.query('TRUNCATE deliveries')
    const line = (after: DrainCursor | null, own: boolean) => ({ inHand: [], after: own ? after : null, limit: SLICE })
    const read = (after: DrainCursor | null) =>
      readDue(db, { receiverId: 'behind', ...line(after, revocation === null), ofRevocations: line(after, revocation !== null), forWebhook: false })
    // Postgres keeps the plan that it makes here.
    expect(await read(null)).toEqual([])
    await ground.sql.query(
      `INSERT INTO deliveries (receiver_id, session_id, client_id, sid, sub, issuer, moot_at, revocation_id)
       SELECT 'behind', 's' || n, 'app', 's' || n, 'u', $2, now() + interval '1 d', $3 FROM generate_series(1, $1::int) n`, [BACKLOG, ISSUER, revocation])
    const before = await entriesRead()
    const seen = new Set<string>()
    let after: DrainCursor | null = null
    for (;;) {
      const due = await read(after)
      for (const { id } of due) seen.add(id)
      const last = due.at(-1)
      if (due.length < SLICE || last === undefined) break
      after = last
    }
    expect(seen.size).toBe(BACKLOG)
    const cost = (await entriesRead()) - before
    expect(cost).toBeGreaterThanOrEqual(BACKLOG)
    expect(cost).toBeLessThanOrEqual(BACKLOG + SLICE)
  })
})
