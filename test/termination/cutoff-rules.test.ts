/** Cutoff rules: what they kill, against a plain model; from when; and that no registration slips past one. */
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { kills } from '../../src/client/kills.ts'
import { ruleThatKills, sessionBorn } from '../../src/store/cutoff-match.ts'
import { listRules, pruneRules, readRulesAfter, refreshRulePlans } from '../../src/store/cutoff-rules.ts'
import { openDatabase } from '../../src/store/postgres.ts'
import type { Database } from '../../src/store/postgres.ts'
import { createSessionStore } from '../../src/store/sessions.ts'
import type { SessionStore } from '../../src/store/sessions.ts'
import { terminateSessions } from '../../src/store/terminations.ts'
import { createSetRule } from '../../src/termination/cutoff-rules.ts'
import type { RuleAsked } from '../../src/termination/cutoff-rules.ts'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'
import { eventsOf, registration } from '../harness/registrations.ts'
import { ISSUER, command } from '../harness/seed.ts'

const DAY_SECONDS = 86_400
const SECOND_MS = 1_000

let database: TestDatabase
let db: Database
let sessions: SessionStore
beforeAll(async () => {
  database = await createDatabase()
  db = openDatabase({ url: database.url, name: 'rules', max: 8 })
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
const refusedByRule = { kind: 'session_terminated', says: expect.stringContaining('cutoff rule') }
const databaseNow = async (): Promise<number> =>
  ((await database.sql.query<{ at: Date }>('SELECT clock_timestamp() AS at')).rows[0]?.at ?? new Date(0)).getTime()

describe('a rule', () => {
  it('kills what matches all of it, was born up to its cutoff and is not excluded; any rule kills, in whatever order they come', async () => {
    const base = Math.floor((await databaseNow()) / SECOND_MS) * SECOND_MS - 3_600_000
    const organization = fc.constantFrom('o1', 'o2')
    const user = fc.constantFrom('u1', 'u2', 'u3')
    // Milliseconds around a few whole seconds, so that rounding and equality are met often.
    const moment = fc.tuple(fc.integer({ min: 0, max: 3 }), fc.constantFrom(0, 1, 500, 999)).map(([s, ms]) => base + s * SECOND_MS + ms)
    const place = fc.constantFrom('here', 'elsewhere')
    const someSessions = fc.array(fc.record({ place, organization, user, born: moment }), { minLength: 1, maxLength: 8 })
    const someRules = fc.array(
      fc.record({
        place,
        organization: fc.option(organization),
        user: fc.option(user),
        bornBefore: moment,
        excludeUsers: fc.uniqueArray(user, { maxLength: 1 }),
        excluded: fc.uniqueArray(fc.integer({ min: 0, max: 7 }), { maxLength: 2 }),
      }),
      { maxLength: 4 },
    )
    await fc.assert(
      fc.asyncProperty(someSessions, someRules, fc.boolean(), async (bornSessions, asked, rulesFirst) => {
        const urls = { here: newIssuer(), elsewhere: newIssuer() }
        const idOf = (n: number) => `${urls.here}/${n}`
        const expected = bornSessions.map((one, n) =>
          asked.some((r) =>
            r.place === one.place && (r.organization ?? one.organization) === one.organization && (r.user ?? one.user) === one.user &&
            one.born <= Math.ceil(r.bornBefore / SECOND_MS) * SECOND_MS && !r.excludeUsers.includes(one.user) && !r.excluded.includes(n)),
        )
        const set = async () => {
          for (const r of asked) {
            await setRule(db, rule({
              issuer: urls[r.place], organization: r.organization, user: r.user, excludeUsers: r.excludeUsers,
              bornBefore: new Date(r.bornBefore).toISOString(), excludeSessions: r.excluded.map(idOf),
            }))
          }
        }
        const registrations = bornSessions.map((one, n) =>
          registration(idOf(n), { issuer: urls[one.place], userId: one.user, resourceOwner: one.organization, authTime: new Date(one.born).toISOString() }))
        if (rulesFirst) await set()
        const registered = await Promise.all(
          registrations.map((one) => sessions.register(at(one.issuer), one).then(() => true, (error: unknown) => {
            expect(error).toMatchObject(refusedByRule)
            return false
          })),
        )
        expect(registered).toEqual(rulesFirst ? expected.map((dead) => !dead) : expected.map(() => true))
        if (!rulesFirst) await set()

        const dead = (known: boolean[]) => known.map((yes) => !yes)
        const wire = (await readRulesAfter(db, { after: 0n, limit: 100_000 })).filter(({ issuer }) => Object.values(urls).includes(issuer))
        const facts = bornSessions.map((one, n) => ({
          issuer: urls[one.place], organization: one.organization, user: one.user, sessionId: idOf(n), bornMs: one.born,
        }))
        expect(facts.map((one) => wire.some((r) => kills(r, one)))).toEqual(expected)
        const read = await Promise.all(registrations.map(({ issuer, id }) => sessions.read(everyone(issuer), id)))
        expect(dead(read.map((found) => found !== null))).toEqual(expected)
        const listed = await Promise.all(Object.values(urls).map((issuer) => sessions.search(everyone(issuer), noFilter, page)))
        const listedIds = new Set(listed.flatMap((result) => result.sessions.map(({ id }) => id)))
        expect(dead(registrations.map(({ id }) => listedIds.has(id)))).toEqual(expected)
        expect(listed.reduce((sum, { totalResult }) => sum + Number(totalResult), 0)).toBe(listedIds.size)
        const refusedAgain = await Promise.all(
          registrations.filter((_, n) => registered[n]).map((one) => sessions.register(at(one.issuer), one).then(() => false, () => true)),
        )
        expect(refusedAgain).toEqual(expected.filter((_, n) => registered[n]))
        const rows = await db.$queryRawUnsafe<{ id: string; killed: boolean }[]>(
          `SELECT s.id, ${ruleThatKills(sessionBorn('s'))} IS NOT NULL AS killed FROM sessions s WHERE s.issuer = ANY($1::text[])`, Object.values(urls))
        for (const { id, killed } of rows) expect(killed).toBe(expected[registrations.findIndex((one) => one.id === id)])
      }),
      { numRuns: 60 },
    )
  })

  it('has the earlier of now and bornBefore as its cutoff, rounded up to a second, and expires when nothing of it can live', async () => {
    const issuer = newIssuer()
    const before = await databaseNow()
    const now = await setRule(db, rule({ issuer }))
    const future = await setRule(db, rule({ issuer, bornBefore: '2999-01-01T00:00:00Z' }))
    const after = await databaseNow()
    for (const { cutoff, expires } of [now, future]) {
      expect(Date.parse(cutoff) % SECOND_MS).toBe(0)
      expect(Date.parse(cutoff)).toBeGreaterThanOrEqual(before)
      expect(Date.parse(cutoff)).toBeLessThan(after + SECOND_MS)
      expect(Date.parse(expires)).toBe(Date.parse(cutoff) + 31 * DAY_SECONDS * SECOND_MS)
    }
    const past = await setRule(db, rule({ issuer, bornBefore: '2020-02-29T12:00:00.001+01:00' }))
    expect(past).toMatchObject({ cutoff: '2020-02-29T11:00:01.000Z', organization: null, user: null, actor: { issuer: ISSUER, subject: 'admin' } })
    // A session born long ago may have been prolonged a moment ago.
    expect(Date.parse(past.expires)).toBeGreaterThanOrEqual(Date.parse(now.expires))
    expect(past.id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
    expect((await listRules(db, { issuer, before: null, limit: 2 })).map(({ id }) => id)).toEqual([past.id, future.id])
    expect((await listRules(db, { issuer, before: future.version, limit: 2 })).map(({ id }) => id)).toEqual([now.id])
  })

  it('is forgotten by guards and lists when it has expired, and pruned after its retention', async () => {
    const issuer = newIssuer()
    const { id } = await setRule(db, rule({ issuer }))
    const held = async () => (await readRulesAfter(db, { after: 0n, limit: 100_000 })).some((one) => one.id === id)
    expect(await held()).toBe(true)
    await database.sql.query(`UPDATE cutoff_rules SET expires_at = now() - interval '1 second', created_at = now() - interval '10 days' WHERE id = $1`, [id])
    expect(await held()).toBe(false)
    expect(await listRules(db, { issuer, before: null, limit: 10 })).toEqual([])
    // Registered late, with a birth before the cutoff: refused for as long as the rule is kept.
    const late = registration('late', { issuer, authTime: new Date(Date.now() - 60_000).toISOString() })
    await expect(sessions.register(at(issuer), late)).rejects.toMatchObject(refusedByRule)
    expect(await pruneRules(db, { retentionSeconds: 11 * DAY_SECONDS, limit: 100 })).toBe(0)
    expect(await pruneRules(db, { retentionSeconds: 9 * DAY_SECONDS, limit: 100 })).toBe(1)
  })

  it('refuses what cannot be a rule', async () => {
    const wrong: Partial<RuleAsked>[] = [
      { issuer: '' }, { user: '' }, { organization: 'a\0' }, { reason: '' }, { bornBefore: 'yesterday' }, { bornBefore: '2026-13-01T00:00:00Z' },
      { excludeUsers: [''] }, { excludeSessions: Array.from({ length: 1_001 }, (_, n) => String(n)) },
    ]
    for (const change of wrong) await expect(setRule(db, rule(change))).rejects.toMatchObject({ kind: 'invalid_argument' })
  })

  it('is not in force where its transaction is rolled back', async () => {
    const issuer = newIssuer()
    await expect(db.$transaction(async (tx) => {
      await setRule(tx, rule({ issuer }))
      throw new Error('not accepted')
    })).rejects.toThrow('not accepted')
    await sessions.register(at(issuer), registration('kept', { issuer }))
    expect(await sessions.read(everyone(issuer), 'kept')).not.toBeNull()
  })

  it('is read in the order of commits, however many set rules at once: who has read up to one has missed none', async () => {
    const issuer = newIssuer()
    const seen: string[] = []
    let after = 0n
    let setting = true
    const read = async () => {
      for (const { id, version } of await readRulesAfter(db, { after, limit: 3 })) {
        seen.push(id)
        after = version
      }
    }
    const reader = (async () => {
      while (setting) await read()
      for (let before = -1; before !== seen.length;) {
        before = seen.length
        await read()
      }
    })()
    const set = await Promise.all(Array.from({ length: 40 }, (_, n) =>
      n % 2 === 0 ? setRule(db, rule({ issuer })) : db.$transaction((tx) => setRule(tx, rule({ issuer })), { maxWait: 20_000, timeout: 20_000 })))
    setting = false
    await reader
    const ours = new Set(set.map(({ id }) => id))
    expect(seen.filter((id) => ours.has(id)).sort()).toEqual([...ours].sort())
  })
})

describe('thousands of rules at once', () => {
  it('make a search that was planned before slow only until its plan is made anew', async () => {
    const issuer = newIssuer()
    const sql = database.sql
    await sql.query('ANALYZE cutoff_rules')
    await sql.query(
      `INSERT INTO sessions (id, issuer, user_id, resource_owner, sequence, registration_hash, creator_issuer, creator_subject, born, created_at, change_date, expires_at)
       SELECT $1 || n, $1, 'u' || n, 'o', 1, '\\x00', 'x', 'y', now(), now(), now(), now() + interval '1 day' FROM generate_series(1, 20000) n`, [issuer])
    await sql.query(
      `INSERT INTO cutoff_rules (id, issuer, user_id, cutoff, reason, actor_issuer, actor_subject, created_at, expires_at, version)
       SELECT gen_random_uuid(), $1, 'u' || n, now() + interval '1 s', 'r', 'a', 'b', now(), now() + interval '1 day', nextval('cutoff_rules_version_seq') FROM generate_series(1, 10000) n`, [issuer])
    await expect.poll(() => refreshRulePlans(db), { timeout: 10_000 }).toBe(true)
    expect(await sessions.search(everyone(issuer), noFilter, { ...page, limit: 1 })).toMatchObject({ totalResult: '10000' })
    await expect.poll(() => refreshRulePlans(db), { timeout: 10_000 }).toBe(false)
  })
})

describe('a session under a rule', () => {
  const underRule = async (): Promise<{ issuer: string; id: string }> => {
    const issuer = newIssuer()
    const id = `${issuer}/s`
    await sessions.register(at(issuer), registration(id, { issuer }))
    await setRule(db, rule({ issuer, user: 'u1' }))
    return { issuer, id }
  }

  it('does not change and is not registered again; batches name it', async () => {
    const { issuer, id } = await underRule()
    const change = { id, metadata: null, userAgent: null, expiry: null, tokenHash: new Uint8Array(32) }
    await expect(sessions.update(at(issuer), change)).rejects.toMatchObject(refusedByRule)
    const batch = [registration(`${id}2`, { issuer, userId: 'u2' }), registration(id, { issuer }), registration(`${id}3`, { issuer, userId: 'u2' })]
    const named = { kind: 'session_terminated', says: expect.stringMatching(/^sessions\[1\]: .*cutoff rule/) }
    await expect(sessions.registerMany(at(issuer), batch)).rejects.toMatchObject(named)
    await expect(sessions.registerMany(at(issuer), [registration(`${id}4`, { issuer, userId: 'u2' }), registration(`${id}5`, { issuer, authTime: new Date(Date.now() - 60_000).toISOString() })])).rejects.toMatchObject(named)
    expect(await sessions.read(everyone(issuer), `${id}2`)).toBeNull()
    expect(await eventsOf(database.sql, id)).toEqual(['session.added'])
  })

  it('keeps a late participant, who is told when it is ended', async () => {
    const { issuer, id } = await underRule()
    expect(await sessions.addParticipant(at(issuer), { sessionId: id, clientId: 'late', sid: null, sub: null })).toEqual({ outcome: 'killed' })
    expect((await database.sql.query('SELECT client_id FROM session_clients WHERE session_id = $1', [id])).rows).toEqual([{ client_id: 'late' }])
  })

  it('can still be ended', async () => {
    const { issuer, id } = await underRule()
    const { answers } = await terminateSessions(db, [command(id, { issuers: [issuer] })])
    expect(answers).toMatchObject([{ outcome: 'ended' }])
  })

  it('is followed by others: what is born after the cutoff lives', async () => {
    const issuer = newIssuer()
    await setRule(db, rule({ issuer }))
    // The cutoff is rounded up to a second, so for the rest of it nobody can register.
    await expect.poll(() => sessions.register(at(issuer), registration('new', { issuer })).then(() => true, () => false), { timeout: 5_000 }).toBe(true)
    expect(await sessions.read(everyone(issuer), 'new')).not.toBeNull()
  })
})
