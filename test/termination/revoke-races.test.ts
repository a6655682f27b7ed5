/** The engine beside others: who holds rows, who steers, who registers, who does the same work, who dies. */
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { createSessionStore } from '../../src/store/sessions.ts'
import { terminateSessions } from '../../src/store/terminations.ts'
import { createSetRule } from '../../src/termination/cutoff-rules.ts'
import { createSteerRevocation } from '../../src/termination/steer-revocation.ts'
import { registration } from '../harness/registrations.ts'
import { ISSUER, command } from '../harness/seed.ts'
import { createRevokeRig } from './revoke-rig.ts'
import type { RevokeRig } from './revoke-rig.ts'

let rig: RevokeRig
beforeAll(async () => { rig = await createRevokeRig() })
afterAll(() => rig.close())

const done = (sessions: number) =>
  expect.objectContaining({ state: 'done', matched: sessions, terminated: sessions, events: sessions, sessions, commits: sessions, committed: true })
const idsOf = (prefix: string, count: number) => Array.from({ length: count }, (_, n) => `${prefix}-${String(n + 1).padStart(8, '0')}`)
const at = { actor: { issuer: ISSUER, subject: 'registrar' }, issuers: [ISSUER] }
const lifetimes = { maxLifetimeSeconds: 86_400, maxTokenLifetimeSeconds: 3_600 }

describe('a revocation beside others', () => {
  it('G8: a locked row delays only its own session, which is ended when it is free', async () => {
    await rig.seed('locked', 3_000)
    const holder = await rig.sql.connect()
    await holder.query('BEGIN')
    await holder.query(`SELECT FROM sessions WHERE id = 'locked-00001000' FOR UPDATE`)
    const id = await rig.accept({ filter: { resourceOwners: ['locked'] } })
    const ended = rig.engine().advance(id)
    await vi.waitFor(async () => expect(await rig.truth(id)).toMatchObject({ state: 'running', terminated: 2_999, matched: 3_000 }), { timeout: 10_000, interval: 20 })
    await holder.query('COMMIT')
    holder.release()
    await ended
    expect(await rig.truth(id)).toEqual(done(3_000))
  })

  it('shares the work with other processes, and nothing is done twice', async () => {
    await rig.seed('shared', 20_000)
    const id = await rig.accept({ filter: { resourceOwners: ['shared'] } })
    const engines = [rig.engine(), rig.engine(), rig.engine()]
    await Promise.all(engines.map((engine) => engine.advance(id)))
    expect(await rig.truth(id)).toEqual(done(20_000))
    const told = engines.flatMap((engine) => engine.told.flatMap(({ ended }) => ended.map(({ sessionId }) => sessionId)))
    expect(told.length).toBe(20_000)
    expect(new Set(told).size).toBe(20_000)
  })

  it('is woken again and again, and ends once', async () => {
    await rig.seed('woken', 500)
    const id = await rig.accept({ filter: { resourceOwners: ['woken'] } })
    const engine = rig.engine()
    await Promise.all(Array.from({ length: 20 }, () => engine.advance(id)))
    await engine.advance(id)
    expect(await rig.truth(id)).toEqual(done(500))
    expect(await rig.one(`SELECT count(*)::int AS n FROM revocation_events WHERE revocation_id = $1 AND type = 'revocation.committed'`, [id])).toEqual({ n: 1 })
  })

  it('two revocations of the same sessions: each ends what the other has not, and both are done', async () => {
    await rig.seed('both', 10_000)
    const ids = [await rig.accept({ filter: { resourceOwners: ['both'] } }), await rig.accept({ filter: { resourceOwners: ['both'] } })]
    await Promise.all(ids.map((id) => rig.engine().advance(id)))
    const truths = await Promise.all(ids.map(rig.truth))
    for (const each of truths) expect(each).toEqual(done(each.terminated))
    expect(truths.reduce((sum, { terminated }) => sum + terminated, 0)).toBe(10_000)
  })

  it('G8, G9: log-outs and rotations of the same sessions neither deadlock nor are ended twice, and counts stay exact', async () => {
    await rig.seed('mixed', 20_000)
    const ids = idsOf('mixed', 20_000)
    const id = await rig.accept({ filter: { resourceOwners: ['mixed'] } })
    let running = true
    const answered: string[] = []
    const logOut = async (from: number) => {
      for (let n = from; running; n += 700) {
        const batch = Array.from({ length: 40 }, (_, k) => ids[(n + k * 37) % ids.length] ?? '')
        const { answers } = await terminateSessions(rig.db, batch.map((sessionId) => command(sessionId)))
        expect(answers.every(({ outcome }) => outcome !== 'unknown')).toBe(true)
        answered.push(...answers.map(({ outcome }) => outcome))
      }
    }
    const rotate = async () => {
      for (let n = 0; running; n += 13) {
        await rig.sql.query(`UPDATE sessions SET sequence = sequence + 1, expires_at = now() + make_interval(secs => 1800 + $2::int % 5000) WHERE id = $1 AND state = 'active'`, [ids[n % ids.length], n])
      }
    }
    const others = [logOut(0), logOut(333), rotate(), rotate()]
    await rig.engine().advance(id)
    running = false
    await Promise.all(others)
    const truth = await rig.truth(id)
    expect(truth).toEqual(done(truth.terminated))
    expect(await rig.live('mixed')).toBe(0)
    expect(await rig.one(`SELECT count(*)::int AS n, count(DISTINCT session_id)::int AS sessions FROM session_events WHERE session_id LIKE 'mixed-%' AND type = 'session.terminated'`))
      .toEqual({ n: 20_000, sessions: 20_000 })
    expect(answered).toContain('ended')
  }, 60_000)

  it('that is paused has ended nothing more when that is answered, and goes on with exact counts when it is resumed', async () => {
    await rig.seed('paused', 30_000)
    const id = await rig.accept({ filter: { resourceOwners: ['paused'] } })
    const engine = rig.engine()
    const steer = createSteerRevocation({ db: rig.db, wake: (woken) => void engine.advance(woken) })
    const asked = { id, only: 'terminations', viewer: { actor: { issuer: ISSUER, subject: 'admin' }, issuers: [ISSUER], reach: 'instance' }, writes: 'instance' } as const
    const first = engine.advance(id)
    for (let times = 0; times < 3; times += 1) {
      await vi.waitFor(async () => expect((await rig.truth(id)).terminated).toBeGreaterThan(times * 4_000), { timeout: 10_000, interval: 5 })
      await steer({ ...asked, verb: 'pause' })
      const paused = await rig.truth(id)
      expect(paused).toMatchObject({ state: 'paused', events: paused.terminated, sessions: paused.terminated, commits: paused.terminated })
      expect(await rig.live('paused')).toBe(30_000 - paused.terminated)
      expect(await rig.truth(id)).toEqual(paused)
      await steer({ ...asked, verb: 'resume' })
    }
    await first
    await vi.waitFor(async () => expect(await rig.truth(id)).toEqual(done(30_000)), { timeout: 20_000, interval: 50 })
  }, 60_000)

  it('that is cancelled ends nothing more, and what it ended stays counted', async () => {
    await rig.seed('cancelled', 30_000)
    const id = await rig.accept({ filter: { resourceOwners: ['cancelled'] } })
    const engine = rig.engine()
    const steer = createSteerRevocation({ db: rig.db, wake: () => {} })
    const first = engine.advance(id)
    await vi.waitFor(async () => expect((await rig.truth(id)).terminated).toBeGreaterThan(0), { timeout: 10_000, interval: 5 })
    await steer({ id, verb: 'cancel', only: null, viewer: { actor: { issuer: ISSUER, subject: 'admin' }, issuers: [ISSUER], reach: 'instance' }, writes: 'instance' })
    const cancelled = await rig.truth(id)
    await first
    await engine.advance(id)
    expect(await rig.truth(id)).toEqual(cancelled)
    expect(cancelled).toMatchObject({ state: 'cancelled', events: cancelled.terminated, commits: cancelled.terminated, committed: false })
    expect(await rig.live('cancelled')).toBe(30_000 - cancelled.terminated)
  })
})

describe('what is born meanwhile', () => {
  it('lives where it is born after the cutoff', async () => {
    await rig.seed('born', 100)
    const id = await rig.accept({ filter: { resourceOwners: ['born'] } })
    // The cutoff is rounded up to a second; what is born after that is no longer meant.
    await vi.waitFor(async () => expect(await rig.one('SELECT clock_timestamp() > cutoff_time AS past FROM revocations WHERE id = $1', [id])).toEqual({ past: true }), { timeout: 3_000, interval: 20 })
    const sessions = createSessionStore({ db: rig.db, ...lifetimes })
    await sessions.register(at, registration('born-later', { resourceOwner: 'born' }))
    await rig.engine().advance(id)
    expect(await rig.truth(id)).toEqual(done(100))
    expect(await rig.one(`SELECT state::text FROM sessions WHERE id = 'born-later'`)).toEqual({ state: 'active' })
  })

  it('is ended where it is born up to the cutoff, however late it is committed: done waits for whoever was registering', async () => {
    await rig.seed('late', 10)
    const registering = await rig.sql.connect()
    await registering.query('BEGIN')
    await registering.query(
      `INSERT INTO sessions (id, issuer, user_id, resource_owner, sequence, registration_hash, creator_issuer, creator_subject, born, created_at, change_date, expires_at)
       VALUES ('late-one', $1, 'u', 'late', 1, 'seed', $1, 'seeder', now(), now(), now(), now() + interval '1 hour')`, [ISSUER])
    const id = await rig.accept({ filter: { resourceOwners: ['late'] } })
    const ended = rig.engine().advance(id)
    await vi.waitFor(async () => expect((await rig.truth(id)).terminated).toBe(10), { timeout: 10_000, interval: 10 })
    await vi.waitFor(async () => expect(await rig.one('SELECT clock_timestamp() > cutoff_time + interval \'300 ms\' AS past FROM revocations WHERE id = $1', [id])).toEqual({ past: true }), { timeout: 3_000, interval: 20 })
    expect(await rig.truth(id)).toMatchObject({ state: 'running' })
    await registering.query('COMMIT')
    registering.release()
    await ended
    expect(await rig.truth(id)).toEqual(done(11))
  })

  it('G2: under rules none slips: while sessions are registered all the time, done is true of whatever was born before', async () => {
    const sessions = createSessionStore({ db: rig.db, ...lifetimes })
    const setRule = createSetRule(lifetimes)
    let running = true
    const register = async (who: number) => {
      for (let n = 0; running; n += 1) {
        await sessions.register(at, registration(`rush-${who}-${n}`, { resourceOwner: 'rush' })).catch((error: unknown) => expect(error).toMatchObject({ kind: 'session_terminated' }))
      }
    }
    const registrars = Array.from({ length: 4 }, (_, who) => register(who))
    for (let times = 0; times < 4; times += 1) {
      await vi.waitFor(async () => expect(await rig.live('rush')).toBeGreaterThan(20), { timeout: 10_000, interval: 20 })
      const id = await rig.accept({ filter: { resourceOwners: ['rush'] }, containment: 'rules' })
      const { cutoff } = await rig.one<{ cutoff: Date }>('SELECT cutoff_time AS cutoff FROM revocations WHERE id = $1', [id])
      await setRule(rig.db, { issuer: ISSUER, organization: 'rush', user: null, bornBefore: cutoff.toISOString(), excludeUsers: [], excludeSessions: [], reason: 'x', actor: at.actor, revocationId: id })
      await rig.engine().advance(id)
      expect(await rig.truth(id)).toMatchObject({ state: 'done' })
      expect(await rig.one(
        `SELECT count(*)::int AS left FROM sessions s JOIN cutoff_rules r ON r.revocation_id = $1 WHERE s.resource_owner = 'rush' AND s.state = 'active' AND s.born <= r.cutoff`, [id],
      )).toEqual({ left: 0 })
    }
    running = false
    await Promise.all(registrars)
  }, 60_000)
})
