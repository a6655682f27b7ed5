import { afterAll, beforeAll, expect, it } from 'vitest'
import { openDatabase } from '../../src/store/postgres.ts'
import type { Database } from '../../src/store/postgres.ts'
import { createTelemetry } from '../../src/telemetry.ts'
import { createTerminate } from '../../src/termination/terminate.ts'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'
import { command, seedSessions } from '../harness/seed.ts'

let database: TestDatabase
let db: Database
const { log } = createTelemetry({ level: 'silent' })

beforeAll(async () => {
  database = await createDatabase()
  db = openDatabase({ url: database.url, name: 'test', max: 4 })
})
afterAll(async () => {
  await db.$disconnect()
  await database.drop()
})

it('splits a batch that a bad row fails, so that the others are committed', async () => {
  const ids = Array.from({ length: 9 }, (_, n) => `split${n}`)
  await seedSessions(database.sql, ids.map((id) => ({ id })))
  const enforced: string[] = []
  let woken = 0
  const terminate = createTerminate({ db, log, wakeRoute: () => woken++, enforce: async (_, ended) => void enforced.push(...ended.map(({ sessionId }) => sessionId)) })
  const poisoned = command('split4', { reason: 'a NUL \u0000 that Postgres refuses' })
  const answers = await terminate(ids.map((id) => (id === 'split4' ? poisoned : command(id))))
  expect(answers.map(({ outcome }) => outcome)).toEqual(ids.map((id) => (id === 'split4' ? 'busy' : 'ended')))
  expect(enforced.toSorted()).toEqual(ids.filter((id) => id !== 'split4'))
  expect(woken).toBeGreaterThan(0)
})

it('neither wakes nor enforces where nothing was ended', async () => {
  const terminate = createTerminate({
    db,
    log,
    wakeRoute: () => expect.unreachable(),
    enforce: () => expect.unreachable(),
  })
  expect(await terminate([command('nobody')])).toEqual([{ outcome: 'unknown' }])
  expect(await terminate([])).toEqual([])
})

it('throws where nothing can be committed, and says nothing was', async () => {
  const away = openDatabase({ url: 'postgresql://nobody@127.0.0.1:1/none', name: 'test', max: 1 })
  const terminate = createTerminate({ db: away, log, wakeRoute: () => {}, enforce: async () => {} })
  await expect(terminate([command('split0'), command('split1')])).rejects.toThrow()
  await away.$disconnect()
})
