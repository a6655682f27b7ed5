/** The engine of revocations: what it ends, what it counts, and what it leaves alone. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ISSUER, seedSessions } from '../harness/seed.ts'
import { createRevokeRig } from './revoke-rig.ts'
import type { RevokeRig } from './revoke-rig.ts'

let rig: RevokeRig
beforeAll(async () => { rig = await createRevokeRig() })
afterAll(() => rig.close())

const done = (sessions: number) =>
  expect.objectContaining({ state: 'done', matched: sessions, terminated: sessions, events: sessions, sessions, commits: sessions, committed: true })

describe('a revocation', () => {
  it('ends all that it means and nothing else, with who asked and why in each event', async () => {
    await seedSessions(rig.sql, [
      { id: 'a1', resourceOwner: 'oa', cacheKeys: ['app:1'], clients: [{ clientId: 'rp', sid: 'rp-sid' }] },
      { id: 'a2', resourceOwner: 'oa', userId: 'spared' },
      { id: 'a3', resourceOwner: 'oa' },
      { id: 'a4', resourceOwner: 'ob' },
      { id: 'a5', resourceOwner: 'oa', expiresInSeconds: -1 },
      { id: 'a6', resourceOwner: 'oa', issuer: 'https://other.example' },
    ])
    const id = await rig.accept({ filter: { resourceOwners: ['oa'] }, exclude: { userIds: ['spared'], sessionIds: ['a3'] } })
    const engine = rig.engine()
    await engine.advance(id)
    expect(await rig.truth(id)).toEqual(done(1))
    const { rows } = await rig.sql.query(
      `SELECT session_id, sequence::int, mode::text, reason, actor_issuer, actor_subject, revocation_id, commit_id::text, resource_owner FROM session_events WHERE revocation_id = $1`, [id])
    expect(rows).toEqual([{ session_id: 'a1', sequence: 2, mode: 'revoke', reason: 'stolen laptop', actor_issuer: ISSUER, actor_subject: 'admin',
      revocation_id: id, commit_id: engine.told[0]?.commitId, resource_owner: 'oa' }])
    expect(engine.told[0]?.ended).toEqual([{ sessionId: 'a1', issuer: ISSUER, expiresAtMs: expect.any(Number), cacheKeys: ['app:1'], sids: ['rp-sid'] }])
    expect(await rig.one(`SELECT array_agg(id ORDER BY id) AS live FROM sessions WHERE id ~ '^a[1-6]$' AND state = 'active'`)).toEqual({ live: ['a2', 'a3', 'a4', 'a5', 'a6'] })
    expect(await rig.one('SELECT type FROM revocation_events WHERE revocation_id = $1 ORDER BY position DESC LIMIT 1', [id])).toEqual({ type: 'revocation.committed' })
  })

  it('that means nobody is done at once', async () => {
    const id = await rig.accept({ filter: { userIds: ['nobody'] }, containment: 'rules' })
    await rig.engine().advance(id)
    expect(await rig.truth(id)).toEqual(done(0))
    const none = await rig.accept({ filter: { resourceOwners: ['o1'] }, reach: new Set(['o2']), containment: 'rules' })
    await rig.engine().advance(none)
    expect(await rig.truth(none)).toEqual(done(0))
  })

  it('of many sessions is cut into slices that several work at, and counts exactly', async () => {
    await rig.seed('many', 120_000)
    const id = await rig.accept({ filter: { resourceOwners: ['many'] } })
    const engine = rig.engine()
    await engine.advance(id)
    expect(await rig.truth(id)).toEqual(done(120_000))
    expect(await rig.live('many')).toBe(0)
    expect(new Set(engine.told.flatMap(({ ended }) => ended.map(({ sessionId }) => sessionId))).size).toBe(120_000)
    expect((await rig.one<{ n: number }>('SELECT count(*)::int AS n FROM revocation_slices WHERE revocation_id = $1', [id])).n).toBeGreaterThan(2)
  }, 60_000)

  it('goes on through what is dead in bounded steps', async () => {
    await rig.seed('dead', 30_000)
    await rig.sql.query(`UPDATE sessions SET state = 'terminated', terminated_at = date_trunc('milliseconds', now()) WHERE resource_owner = 'dead' AND id < 'dead-00029991'`)
    const id = await rig.accept({ filter: { resourceOwners: ['dead'] } })
    await rig.engine().advance(id)
    expect(await rig.truth(id)).toEqual(done(10))
  })

  it('does nothing that was not asked for: an unknown id, one that is over, one that is paused', async () => {
    const engine = rig.engine()
    await engine.advance('01900000-0000-7000-8000-000000000000')
    await rig.seed('still', 10)
    const id = await rig.accept({ filter: { resourceOwners: ['still'] } })
    for (const state of ['paused', 'cancelled']) {
      await rig.sql.query('UPDATE revocations SET state = $2 WHERE id = $1', [id, state])
      await engine.advance(id)
      expect(await rig.truth(id)).toMatchObject({ state, terminated: 0 })
    }
    expect(await rig.live('still')).toBe(10)
  })
})

describe('many revocations at once', () => {
  it('all end, also where each proof and each chunk waits for its turn', async () => {
    await rig.seed('crowd', 3_000)
    const ids = await Promise.all(Array.from({ length: 60 }, (_, n) => rig.accept({ filter: { resourceOwners: ['crowd'], userIds: [`u${n}`] }, containment: 'rules' })))
    const engine = rig.engine()
    await Promise.all(ids.map((id) => engine.advance(id)))
    for (const id of ids) expect(await rig.truth(id)).toEqual(done(30))
    expect(await rig.live('crowd')).toBe(1_200)
  }, 60_000)
})
