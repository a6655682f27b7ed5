/**
 * Curfew obeys itself: a token whose session is terminated, by whichever name it knows the session, or that a cutoff rule
 * kills, is refused.
 */
import { randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { Caller } from '../../src/auth/caller.ts'
import { createRefuseDeadToken } from '../../src/auth/own-session.ts'
import { createRulesInForce } from '../../src/auth/rules-in-force.ts'
import type { RulesInForce } from '../../src/auth/rules-in-force.ts'
import { createAuthorizationReader } from '../../src/store/authorization.ts'
import type { Death } from '../../src/store/authorization.ts'
import { readRulesAfter } from '../../src/store/cutoff-rules.ts'
import { openDatabase } from '../../src/store/postgres.ts'
import type { Database } from '../../src/store/postgres.ts'
import { createSetRule } from '../../src/termination/cutoff-rules.ts'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'
import { callerWith, createClock, silentLog } from './bench.ts'

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

let counted: Death[] = []
afterEach(() => {
  counted = []
})
const refuseWith = (asked: Database, rules: Pick<RulesInForce, 'death'> = { death: () => null }) =>
  createRefuseDeadToken({ read: createAuthorizationReader(asked), rules, count: (death) => counted.push(death) })

const check = (sid: string | null, sessionIssuers: string[] = [A], born: Partial<Caller> = {}) =>
  refuseWith(db)(callerWith({ actor: { issuer: A, subject: 'alice' }, sid, sessionIssuers, ...born }))

const setRule = (rule: { issuer: string; organization?: string; user?: string; cutoffMs: number; excludeUsers?: string[]; excludeSessions?: string[] }) =>
  createSetRule({ maxLifetimeSeconds: 86_400, maxTokenLifetimeSeconds: 3_600 })(db, {
    issuer: rule.issuer,
    organization: rule.organization ?? null,
    user: rule.user ?? null,
    bornBefore: new Date(rule.cutoffMs).toISOString(),
    excludeUsers: rule.excludeUsers ?? [],
    excludeSessions: rule.excludeSessions ?? [],
    reason: 'test',
    actor: { issuer: A, subject: 'admin' },
    revocationId: null,
  })

const flood: Pick<Caller, 'grants'> = { grants: new Map([['session.delete', 'instance']]) }

const dead = { kind: 'token_invalid' }

it('passes a token without a sid that may end every session at once, without a promise', () => {
  expect(check(null, [A], flood)).toBeUndefined()
})

it('passes a token of a live or unknown session', async () => {
  const id = await seed(A, false, ['sid-live'])
  for (const sid of [id, 'sid-live', 'nobody knows it', 'a\0b']) await expect(check(sid)).resolves.toBeUndefined()
})

it('refuses a token from the moment its session is terminated, by id and by each participant\'s sid', async () => {
  const id = await seed(A, false, ['sid-1', 'sid-2'])
  const refuse = refuseWith(db)
  const callers = [id, 'sid-1', 'sid-2'].map((sid) => callerWith({ sid, sessionIssuers: [A] }))
  for (const caller of callers) await refuse(caller)
  await terminate(id)
  for (const caller of callers) await expect(refuse(caller)).rejects.toMatchObject(dead)
  expect(counted).toEqual(callers.map(() => ({ by: 'session', issuer: A, id })))
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
  const refuse = refuseWith(away)
  await expect(refuse(callerWith({ sid: 'any' }))).rejects.toMatchObject({ kind: 'unavailable' })
  await away.$disconnect()
})

describe('a cutoff rule', () => {
  const T = 1_700_000_000_000
  let issuer = ''
  let issuers = 0
  beforeEach(() => {
    issuer = `https://rules-${(issuers += 1)}.example`
  })
  const ask = (born: Partial<Caller>) => check(null, [issuer], { actor: { issuer, subject: 'alice' }, bornMs: T, ...born })

  it('kills tokens of its issuer that were born up to it, and that do not say when; no others', async () => {
    await ask({})
    const { id } = await setRule({ issuer, cutoffMs: T })
    for (const bornMs of [T, T - 1, 0, -1e300]) await expect(ask({ bornMs })).rejects.toMatchObject(dead)
    expect(counted).toEqual(Array.from({ length: 4 }, () => ({ by: 'rule', issuer, id })))
    await ask({ bornMs: T + 1_000 })
    await check(null, [A, issuer], { bornMs: 0 })
  })

  it('for a user or an organization kills what names it', async () => {
    await setRule({ issuer, user: 'alice', cutoffMs: T })
    await setRule({ issuer, organization: 'o1', cutoffMs: T - 5_000 })
    await expect(ask({})).rejects.toMatchObject(dead)
    const bob = { actor: { issuer, subject: 'bob' }, bornMs: T - 5_000 }
    await ask(bob)
    await ask({ ...bob, organizations: ['o2', 'a\0'] })
    await expect(ask({ ...bob, organizations: ['o2', 'o1'] })).rejects.toMatchObject(dead)
    await ask({ ...bob, bornMs: T, organizations: ['o1'] })
  })

  it('kills a token of a session that it kills, whatever the token says of itself', async () => {
    const id = await seed(A, false, ['sid-of-rule'])
    const caller = { bornMs: Date.now() + 10_000, organizations: [] }
    await check('sid-of-rule', [A], caller)
    const { id: rule } = await setRule({ issuer: A, organization: 'o1', user: 'alice', cutoffMs: Date.now() + 1_000 })
    for (const sid of [id, 'sid-of-rule']) await expect(check(sid, [A], caller)).rejects.toMatchObject(dead)
    expect(counted).toEqual([{ by: 'rule', issuer: A, id: rule }, { by: 'rule', issuer: A, id: rule }])
    await terminate(id)
    await expect(check(id, [A], caller)).rejects.toMatchObject(dead)
    expect(counted.at(-1)).toEqual({ by: 'session', issuer: A, id })
  })

  it('spares excluded users, and excluded sessions by whichever name a token knows them', async () => {
    const kept = await seed(issuer, false, ['kept-sid'])
    const other = await seed(issuer, false)
    await setRule({ issuer, cutoffMs: Date.now(), excludeUsers: ['break-glass'], excludeSessions: [kept] })
    const say = (sid: string | null, subject = 'alice') => check(sid, [issuer], { actor: { issuer, subject } })
    await say(kept)
    await say('kept-sid')
    await say(null, 'break-glass')
    await expect(say(other)).rejects.toMatchObject(dead)
    await expect(say(null)).rejects.toMatchObject(dead)
  })

  it('kills also the flood, within a second, and at once where rules cannot be told from memory', async () => {
    const clock = createClock()
    let away = false
    const rules = createRulesInForce({
      read: (asked) => (away ? Promise.reject(new Error('away')) : readRulesAfter(db, asked)),
      log: silentLog,
      elapsed: clock.elapsed,
    })
    const refuse = refuseWith(db, rules)
    const caller = callerWith({ actor: { issuer, subject: 'service' }, sessionIssuers: [issuer], bornMs: T, organizations: ['o1'], ...flood })
    // Nothing was read yet: the request asks for itself.
    await expect(refuse(caller)).resolves.toBeUndefined()
    await rules.start()
    expect(refuse(caller)).toBeUndefined()
    await setRule({ issuer, organization: 'o1', cutoffMs: T })
    await expect.poll(() => rules.death(caller), { timeout: 5_000 }).toMatchObject({ by: 'rule', issuer })
    expect(() => refuse(caller)).toThrow(expect.objectContaining(dead))
    await rules.stop()

    // Memory that is too old says nothing.
    away = true
    clock.pass(1_001)
    await rules.refresh()
    expect(rules.death(caller)).toBeUndefined()
    await expect(refuse(caller)).rejects.toMatchObject(dead)
    away = false
    const { id } = await setRule({ issuer, user: 'service', cutoffMs: T + 60_000 })
    await rules.refresh()
    expect(rules.death({ ...caller, organizations: [] })).toEqual({ by: 'rule', issuer, id })
    // Once a minute everything is read again.
    clock.pass(61_000)
    await database.sql.query(`UPDATE cutoff_rules SET expires_at = now() - interval '1 s' WHERE issuer = $1`, [issuer])
    await rules.refresh()
    expect(rules.death(caller)).toBeNull()
  })
})
