import { afterAll, beforeAll, expect, it } from 'vitest'
import { createAuthorizationReader } from '../../src/store/authorization.ts'
import type { TokenFacts } from '../../src/store/authorization.ts'
import { openDatabase } from '../../src/store/postgres.ts'
import type { Database } from '../../src/store/postgres.ts'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'

let database: TestDatabase
let db: Database
beforeAll(async () => {
  database = await createDatabase()
  db = openDatabase({ url: database.url, name: 'authorization', max: 4 })
  await database.sql.query(
    `INSERT INTO sessions (id, issuer, user_id, resource_owner, state, sequence, token_hash, registration_hash, creator_issuer, creator_subject, born, created_at, change_date, expires_at, terminated_at)
     SELECT 's' || n, 'https://a.example', 'u' || n, 'o' || n % 3, (CASE WHEN n % 2 = 0 THEN 'terminated' ELSE 'active' END)::session_state, n, '\\x01', '\\x00', 'i', 's',
            now(), now(), '2024-01-02T03:04:05.006Z', now() + interval '1 day', CASE WHEN n % 2 = 0 THEN now() END
     FROM generate_series(1, 1200) AS n`,
  )
})
afterAll(async () => {
  await db.$disconnect()
  await database.drop()
})

const token = (sid: string | null): TokenFacts => ({
  actor: { issuer: 'https://a.example', subject: 'u' },
  sid,
  bornMs: 0,
  organizations: [],
  sessionIssuers: ['https://b.example', 'https://a.example'],
})

it('answers many questions of both kinds with few queries, each its own', async () => {
  let queries = 0
  const counting = new Proxy(db, {
    get: (target, name: keyof Database) => {
      if (name === '$queryRawUnsafe') queries += 1
      return target[name] as unknown
    },
  })
  const reader = createAuthorizationReader(counting)
  const numbers = Array.from({ length: 1_300 }, (_, index) => index + 1)
  const [sessions, dead] = await Promise.all([
    Promise.all(numbers.map((n) => reader.session(`s${n}`))),
    Promise.all(numbers.map((n) => reader.death(token(`s${n}`)))),
  ])
  // 2,600 questions, 500 at a time.
  expect(queries).toBe(6)
  for (const n of numbers) {
    const even = n % 2 === 0
    expect(sessions[n - 1]).toEqual(
      n > 1_200
        ? null
        : {
            issuer: 'https://a.example',
            userId: `u${n}`,
            resourceOwner: `o${n % 3}`,
            tokenHash: new Uint8Array([1]),
            terminated: even ? { sequence: String(n), changeDate: '2024-01-02T03:04:05.006Z', resourceOwner: `o${n % 3}` } : null,
          },
    )
    expect(dead[n - 1]).toEqual(even && n <= 1_200 ? { by: 'session', issuer: 'https://a.example', id: `s${n}` } : null)
  }
})

it('G12: an id that Postgres cannot hold is unknown, and fails nobody else', async () => {
  const reader = createAuthorizationReader(db)
  const [bad, worse, good] = await Promise.all([reader.session('a\0'), reader.death({ ...token('\0'), organizations: ['\0', '\ud800'], bornMs: -1e300 }), reader.session('s1')])
  expect([bad, worse, good?.userId]).toEqual([null, null, 'u1'])
})

it('keeps odd ids apart: case, spaces, quotes, lone surrogates', async () => {
  const reader = createAuthorizationReader(db)
  for (const id of ['S1', 's1 ', ' s1', "s1' OR '1'='1", '{s1}', 's1,s2', '"s1"', '\ud800', 'NULL', '']) {
    expect(await reader.session(id), id).toBeNull()
  }
})

it('refuses one question more than may wait, at once, and answers the others', async () => {
  const reader = createAuthorizationReader(db, { maxWaiting: 3 })
  const asked = await Promise.allSettled(['s1', 's2', 's3', 's4'].map((id) => reader.session(id)))
  expect(asked.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'fulfilled', 'rejected'])
  expect(asked[3]).toMatchObject({ reason: { kind: 'overloaded' } })
})
