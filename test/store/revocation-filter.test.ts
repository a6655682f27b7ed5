/** Filters of revocations against a plain oracle in memory, for counting and for walking, whatever index is chosen. */
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { RevocationFilter, RevocationScope } from '../../src/model.ts'
import { openDatabase } from '../../src/store/postgres.ts'
import type { Database } from '../../src/store/postgres.ts'
import { countMatching, matchingSessions } from '../../src/store/revocation-filter.ts'
import { createStatement } from '../../src/store/statement.ts'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'
import { candidates, isMeant, noFilter, seedCandidates } from './revocation-candidates.ts'

let database: TestDatabase
let db: Database
beforeAll(async () => {
  database = await createDatabase()
  db = openDatabase({ url: database.url, name: 'filter', max: 2 })
  await seedCandidates(database.sql)
})
afterAll(async () => {
  await db.$disconnect()
  await database.drop()
})

const pick = (values: readonly string[], most = 3) => fc.uniqueArray(fc.constantFrom(...values), { maxLength: most })
const filters: fc.Arbitrary<RevocationFilter> = fc.record({
  resourceOwners: pick(candidates.organizations),
  userIds: pick(candidates.users),
  sessionIds: fc.oneof({ weight: 5, arbitrary: fc.constant([]) }, pick([...candidates.sessions.map(({ id }) => id), 'nobody'], 60)),
  clientIds: pick(candidates.clients),
  fingerprintIds: pick(candidates.fingerprints),
  ips: pick(candidates.networks),
  bornBefore: fc.constant(null),
  bornAfter: fc.option(fc.constantFrom(...candidates.times)),
  includeExpired: fc.boolean(),
  all: fc.constant(false),
})
const scopes: fc.Arbitrary<RevocationScope> = fc.record({
  issuers: fc.uniqueArray(fc.constantFrom(...candidates.issuers, 'https://nobody.example'), { minLength: 1 }),
  reach: fc.oneof(fc.constant('instance' as const), pick(candidates.organizations).map((some) => new Set(some))),
  filter: fc.oneof(filters, fc.constant(noFilter)),
  exclude: fc.record({ userIds: pick(candidates.users), sessionIds: pick(candidates.sessions.map(({ id }) => id), 40) }),
  cutoff: fc.constantFrom(...candidates.times, '2100-01-01T00:00:00Z'),
})

describe('a filter', () => {
  it('means what a plain reading of it means, and is counted along any index', async () => {
    await fc.assert(
      fc.asyncProperty(scopes, async (scope) => {
        const meant = candidates.sessions.filter((session) => isMeant(scope, session))
        const { values, next } = createStatement()
        const rows = await db.$queryRawUnsafe<{ id: string }[]>(`SELECT s.id FROM sessions s WHERE ${matchingSessions(scope, next)} ORDER BY s.id`, ...values)
        expect(rows.map(({ id }) => id)).toEqual(meant.map(({ id }) => id).sort())
        expect(await countMatching(db, scope, 1_000)).toEqual({ count: meant.filter(({ live }) => live).length, exact: true })
      }),
      { numRuns: 300 },
    )
  })

  it('is counted up to a bound, and then at least', async () => {
    const scope: RevocationScope = { issuers: candidates.issuers, reach: 'instance', filter: { ...noFilter, all: true, includeExpired: true }, exclude: { userIds: [], sessionIds: [] }, cutoff: '2100-01-01T00:00:00Z' }
    const live = candidates.sessions.filter((session) => session.live).length
    expect(await countMatching(db, scope, live)).toEqual({ count: live, exact: false })
    expect(await countMatching(db, scope, live + 1)).toEqual({ count: live, exact: true })
  })
})
