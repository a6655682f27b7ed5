/** Cutoff rules and registrations at the same moment: none slips between them. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openDatabase } from '../../src/store/postgres.ts'
import type { Database } from '../../src/store/postgres.ts'
import { createSessionStore } from '../../src/store/sessions.ts'
import type { SessionStore } from '../../src/store/sessions.ts'
import { createSetRule } from '../../src/termination/cutoff-rules.ts'
import type { RuleAsked } from '../../src/termination/cutoff-rules.ts'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'
import { registration } from '../harness/registrations.ts'
import { ISSUER } from '../harness/seed.ts'

const DAY_SECONDS = 86_400

let database: TestDatabase
let db: Database
let sessions: SessionStore
beforeAll(async () => {
  database = await createDatabase()
  db = openDatabase({ url: database.url, name: 'race', max: 8 })
  sessions = createSessionStore({ db, maxLifetimeSeconds: 30 * DAY_SECONDS, maxTokenLifetimeSeconds: DAY_SECONDS })
})
afterAll(async () => {
  await db.$disconnect()
  await database.drop()
})

const setRule = createSetRule({ maxLifetimeSeconds: 30 * DAY_SECONDS, maxTokenLifetimeSeconds: DAY_SECONDS })
const rule = (change: Partial<RuleAsked> = {}): RuleAsked => ({
  issuer: ISSUER,
  organization: null,
  user: null,
  bornBefore: null,
  excludeUsers: [],
  excludeSessions: [],
  reason: 'stolen laptop',
  actor: { issuer: ISSUER, subject: 'admin' },
  revocationId: null,
  ...change,
})
let issuers = 0
const newIssuer = (): string => `https://issuer-${(issuers += 1)}.example`
const at = (issuer: string) => ({ actor: { issuer, subject: 'registrar' }, issuers: [issuer] })
const everyone = (issuer: string) => ({ ...at(issuer), reach: 'instance' as const })
const noFilter = { ids: null, userIds: null, creators: null, fingerprintIds: null, created: null, expires: null }
const page = { offset: 0, limit: 1_000, ascending: true }

describe('rules under concurrent registration', () => {
  it('let none slip: each registration is refused, or born later, or dead to every check', async () => {
    const issuer = newIssuer()
    let registering = true
    const answered: { id: string; askedMs: number; accepted: boolean }[] = []
    const register = async (who: number) => {
      for (let n = 0; registering; n += 1) {
        const ids = [`${issuer}/${who}/${n}`, `${issuer}/${who}/${n}b`]
        const asked = ids.map((id) => registration(id, { issuer, userId: `u${n % 3}` }))
        const askedMs = performance.now()
        const accepted = await (who % 2 === 0 ? sessions.registerMany(at(issuer), asked) : sessions.register(at(issuer), asked[0] ?? registration('')))
          .then(() => true, (error: unknown) => {
            expect(error).toMatchObject({ kind: 'session_terminated' })
            return false
          })
        for (const id of who % 2 === 0 ? ids : ids.slice(0, 1)) answered.push({ id, askedMs, accepted })
      }
    }
    const registrars = Array.from({ length: 5 }, (_, who) => register(who))
    const set: { user: string | null; cutoff: number; answeredMs: number }[] = []
    for (const user of ['u0', null, 'u1', 'u2', null]) {
      const accepted = () => answered.filter((one) => one.accepted).length
      const before = accepted()
      await expect.poll(accepted, { timeout: 10_000, interval: 5 }).toBeGreaterThan(before + 20)
      const { cutoff } = await setRule(db, rule({ issuer, user }))
      set.push({ user, cutoff: Date.parse(cutoff), answeredMs: performance.now() })
    }
    registering = false
    await Promise.all(registrars)

    const { rows } = await database.sql.query<{ id: string; user_id: string; born: Date }>('SELECT id, user_id, born FROM sessions WHERE issuer = $1', [issuer])
    const dead = (one: { user_id: string; born: Date }) => set.some((r) => (r.user ?? one.user_id) === one.user_id && one.born.getTime() <= r.cutoff)
    expect(new Set(rows.map(({ id }) => id))).toEqual(new Set(answered.filter((one) => one.accepted).map(({ id }) => id)))
    const live = new Set((await sessions.search(everyone(issuer), noFilter, page)).sessions.map(({ id }) => id))
    for (const row of rows) expect(live.has(row.id)).toBe(!dead(row))
    expect(rows.some(dead)).toBe(true)
    // Whoever asked after a rule was answered was judged by it.
    const bornOf = new Map(rows.map((row) => [row.id, row]))
    for (const { id, askedMs } of answered) {
      const row = bornOf.get(id)
      if (row === undefined) continue
      for (const r of set.filter(({ answeredMs }) => answeredMs < askedMs)) {
        if ((r.user ?? row.user_id) === row.user_id) expect(row.born.getTime()).toBeGreaterThan(r.cutoff)
      }
    }
  })

  it('can wait for all who did not see them: a registration holds a lock until its end', async () => {
    const issuer = newIssuer()
    const alone = `SELECT pg_try_advisory_xact_lock(hashtext('curfew'), hashtext('cutoff rules')) AS got`
    const [registering, other] = [await database.sql.connect(), database.sql]
    await registering.query('BEGIN')
    await registering.query(`SELECT cutoff_rule_of($1, 'o', 'u', 's', now())`, [issuer])
    expect((await other.query(alone)).rows).toEqual([{ got: false }])
    await setRule(db, rule({ issuer }))
    const { rows } = await registering.query(`SELECT cutoff_rule_of($1, 'o', 'u', 's', now()) IS NOT NULL AS killed`, [issuer])
    expect(rows).toEqual([{ killed: true }])
    await registering.query('COMMIT')
    registering.release()
    expect((await other.query(alone)).rows).toEqual([{ got: true }])
  })
})
