/** What followers of the stream over HTTP are told when things happen between two of their steps. */
import { randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, beforeEach, expect, it, vi } from 'vitest'
import { createStreamFeed } from '../../src/api/stream-feed.ts'
import type { Step, StreamFeed, StreamReads } from '../../src/api/stream-feed.ts'
import { readRulesAfter } from '../../src/store/cutoff-rules.ts'
import { openDatabase } from '../../src/store/postgres.ts'
import type { Database } from '../../src/store/postgres.ts'
import { givePositions, pruneEntries, readEntries, readHead } from '../../src/store/stream.ts'
import { terminateSessions } from '../../src/store/terminations.ts'
import { createTelemetry } from '../../src/telemetry.ts'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'
import { command, seedSessions } from '../harness/seed.ts'

let database: TestDatabase
let db: Database
let feed: StreamFeed
let reads: StreamReads
/** Called before each read of the head. */
let beforeHead: () => Promise<void>

beforeAll(async () => {
  database = await createDatabase()
  db = openDatabase({ url: database.url, name: 'test', max: 6 })
})
afterAll(async () => {
  await db.$disconnect()
  await database.drop()
})
beforeEach(async () => {
  await database.sql.query('TRUNCATE sessions, session_clients, session_events, commits, cutoff_rules, stream_entries')
  beforeHead = async () => {}
  reads = {
    readHead: async () => {
      await beforeHead()
      return readHead(db)
    },
    givePositions: () => givePositions(db),
    readEntries: (asked) => readEntries(db, { ...asked, maxTokenLifetimeSeconds: 3_600 }),
    readRulesAfter: (asked) => readRulesAfter(db, asked),
    log: createTelemetry({ level: 'silent' }).log,
  }
  feed = createStreamFeed(reads)
})
afterEach(() => feed.stop())

const end = async (count: number): Promise<string[]> => {
  const ids = Array.from({ length: count }, () => randomUUID())
  await seedSessions(database.sql, ids.map((id) => ({ id })))
  await terminateSessions(db, ids.map((id) => command(id)))
  await givePositions(db)
  return ids
}
const head = async () => {
  const { epoch, position, rule } = await readHead(db)
  return { epoch, position, rule }
}
/** What follows until one of this kind, with it. */
const until = async (steps: AsyncGenerator<Step, void, void>, kind: Step['kind']): Promise<Step[]> => {
  const seen: Step[] = []
  for (;;) {
    const { done, value } = await steps.next()
    if (done) return seen
    seen.push(value)
    if (value.kind === kind) return seen
  }
}
const idsOf = (steps: readonly Step[]) => steps.flatMap((step) => (step.kind === 'entry' ? (step.entry.ended ?? []).flatMap(({ sessionIds }) => sessionIds) : []))

it('goes on for others where the first who came left before he was answered', async () => {
  const leaves = new AbortController()
  beforeHead = async () => leaves.abort()
  await feed.follow(await head(), leaves.signal).then((steps) => until(steps, 'fresh'))
  beforeHead = async () => {}
  const stays = new AbortController()
  const steps = await feed.follow(await head(), stays.signal)
  const [id = ''] = await end(1)
  expect(idsOf(await until(steps, 'entry'))).toEqual([id])
  stays.abort()
  await vi.waitUntil(() => feed.followers() === 0, { timeout: 10_000 })
})

it('sends all who follow back for a snapshot when the epoch is another, whoever notices it first', async () => {
  await end(1)
  const from = await head()
  const [first, second] = [new AbortController(), new AbortController()]
  const before = await feed.follow(from, first.signal)
  await until(before, 'fresh')
  // Nobody reads the head while the table is another one; then whoever comes reads it before the poller does.
  let open = () => {}
  const gate = new Promise<void>((resolve) => { open = resolve })
  let isNew = false
  // A read that is under way by now still brings the old epoch: the next one waits at the gate.
  await new Promise<void>((resolve) => {
    beforeHead = () => {
      resolve()
      return isNew ? Promise.resolve() : gate
    }
  })
  await database.sql.query(`
    BEGIN; CREATE TABLE anew (LIKE stream_entries INCLUDING ALL); ALTER SEQUENCE stream_position_seq OWNED BY NONE; ALTER SEQUENCE stream_entries_id_seq OWNED BY NONE;
    DROP TABLE stream_entries; ALTER TABLE anew RENAME TO stream_entries; COMMIT`)
  const now = await head()
  expect(now.epoch).not.toBe(from.epoch)
  isNew = true
  const after = await feed.follow(now, second.signal)
  open()
  expect((await until(before, 'reset')).at(-1)).toEqual({ kind: 'reset' })
  const [id = ''] = await end(1)
  expect(idsOf(await until(after, 'entry'))).toEqual([id])
  first.abort()
  second.abort()
})

it('sends a reader back for a snapshot who is so slow that what he had not read is pruned', async () => {
  const from = await head()
  // More than one page of sessions.
  for (let n = 0; n < 4; n += 1) await end(1_500)
  const leaves = new AbortController()
  const steps = await feed.follow(from, leaves.signal)
  expect((await steps.next()).value).toMatchObject({ kind: 'entry' })
  await database.sql.query(`SELECT setval('stream_position_seq', (SELECT max(position) + 200000 FROM stream_entries))`)
  await end(1)
  while ((await pruneEntries(db)) > 0);
  expect((await until(steps, 'reset')).at(-1)).toEqual({ kind: 'reset' })
  leaves.abort()
})
