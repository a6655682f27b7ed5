/** Curfew obeys itself: a token whose session is terminated is refused, by whichever name it knows the session. */
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { createRefuseDeadToken } from '../../src/auth/own-session.ts'
import { createAuthorizationReader } from '../../src/store/authorization.ts'
import { openDatabase } from '../../src/store/postgres.ts'
import type { Database } from '../../src/store/postgres.ts'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'
import { callerWith } from './bench.ts'

const A = 'https://a.example'
const B = 'https://b.example'

let database: TestDatabase
let db: Database
beforeAll(async () => {
  database = await createDatabase()
  db = openDatabase({ url: database.url, name: 'own-session', max: 2 })
})
afterAll(async () => {
  await db.$disconnect()
  await database.drop()
})

const seed = async (issuer: string, terminated: boolean, sids: readonly string[] = []): Promise<string> => {
  const id = randomUUID()
  await database.sql.query(
    `INSERT INTO sessions (id, issuer, user_id, resource_owner, state, sequence, registration_hash, creator_issuer, creator_subject, born, created_at, change_date, expires_at, terminated_at)
     VALUES ($1, $2, 'alice', 'o1', $3, 1, '\\x00', $2, 'registrar', now(), now(), now(), now() + interval '1 day', $4)`,
    [id, issuer, terminated ? 'terminated' : 'active', terminated ? new Date() : null],
  )
  for (const [n, sid] of sids.entries()) {
    await database.sql.query('INSERT INTO session_clients (session_id, client_id, sid, sub) VALUES ($1, $2, $3, $4)', [id, `c${n}`, sid, 'alice'])
  }
  return id
}

const terminate = (id: string) =>
  database.sql.query("UPDATE sessions SET state = 'terminated', terminated_at = now() WHERE id = $1", [id])

const check = (sid: string | null, sessionIssuers: string[] = [A]) =>
  createRefuseDeadToken({ read: createAuthorizationReader(db) })(callerWith({ sid, sessionIssuers }))

const dead = { kind: 'token_invalid' }

it('passes a token without a sid at once, without a promise', () => {
  expect(check(null)).toBeUndefined()
})

it('passes a token of a live or unknown session', async () => {
  const id = await seed(A, false, ['sid-live'])
  for (const sid of [id, 'sid-live', 'nobody knows it', 'a\0b']) await expect(check(sid)).resolves.toBeUndefined()
})

it('refuses a token from the moment its session is terminated, by id and by each participant\'s sid', async () => {
  const id = await seed(A, false, ['sid-1', 'sid-2'])
  const refuse = createRefuseDeadToken({ read: createAuthorizationReader(db) })
  const callers = [id, 'sid-1', 'sid-2'].map((sid) => callerWith({ sid, sessionIssuers: [A] }))
  for (const caller of callers) await refuse(caller)
  await terminate(id)
  for (const caller of callers) await expect(refuse(caller)).rejects.toMatchObject(dead)
})

it('looks only at issuers for which the token\'s issuer speaks', async () => {
  const id = await seed(B, true, ['sid-b'])
  for (const sid of [id, 'sid-b']) {
    await check(sid, [A])
    await expect(check(sid, [B])).rejects.toMatchObject(dead)
    await expect(check(sid, [A, B])).rejects.toMatchObject(dead)
  }
})

it('refuses a sid that a live and a terminated session share', async () => {
  await seed(A, false, ['shared'])
  await seed(A, true, ['shared'])
  await expect(check('shared')).rejects.toMatchObject(dead)
})

it('does not pass while Postgres cannot be asked', async () => {
  const away = openDatabase({ url: 'postgresql://postgres:postgres@127.0.0.1:1/none', name: 'away', max: 1 })
  const refuse = createRefuseDeadToken({ read: createAuthorizationReader(away) })
  await expect(refuse(callerWith({ sid: 'any' }))).rejects.toMatchObject({ kind: 'unavailable' })
  await away.$disconnect()
})
