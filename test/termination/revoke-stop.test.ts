/** The engine when its process stops: the chunk under way is the last, and whoever begins anew goes on from there. */
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { createRevokeRig } from './revoke-rig.ts'
import type { RevokeRig } from './revoke-rig.ts'

let rig: RevokeRig
beforeAll(async () => { rig = await createRevokeRig() })
afterAll(() => rig.close())

it('stops after the chunk under way, wherever it is, and another goes on', async () => {
  await rig.seed('stopped', 30_000)
  const id = await rig.accept({ filter: { resourceOwners: ['stopped'] } })
  for (const part of [1, 5_000, 10_000, 15_000, 20_000]) {
    const engine = rig.engine()
    const ended = engine.advance(id)
    await vi.waitFor(async () => expect((await rig.truth(id)).terminated).toBeGreaterThanOrEqual(part), { timeout: 10_000, interval: 2 })
    await engine.stop()
    await ended
    const truth = await rig.truth(id)
    expect(truth).toMatchObject({ matched: truth.terminated, events: truth.terminated, commits: truth.terminated })
  }
  await rig.engine().advance(id)
  expect(await rig.truth(id)).toMatchObject({ state: 'done', matched: 30_000, terminated: 30_000, events: 30_000, sessions: 30_000 })
})

it('stops while it waits for a session that somebody holds, and for whoever registers', async () => {
  await rig.seed('waits', 10)
  const holder = await rig.sql.connect()
  await holder.query('BEGIN')
  await holder.query(`SELECT FROM sessions WHERE id = 'waits-00000001' FOR UPDATE`)
  const id = await rig.accept({ filter: { resourceOwners: ['waits'] } })
  const engine = rig.engine()
  const ended = engine.advance(id)
  await vi.waitFor(async () => expect((await rig.truth(id)).terminated).toBe(9), { timeout: 10_000, interval: 5 })
  await engine.stop()
  await ended
  await holder.query(`UPDATE sessions SET metadata = '{}' WHERE id = 'waits-00000001'`)
  const other = rig.engine()
  const waiting = other.advance(id)
  await vi.waitFor(async () => expect((await rig.truth(id)).pass).toBeGreaterThan(1), { timeout: 10_000, interval: 5 })
  await other.stop()
  await waiting
  expect(await rig.truth(id)).toMatchObject({ state: 'running', terminated: 9 })
  await holder.query('COMMIT')
  holder.release()
  await rig.engine().advance(id)
  expect(await rig.truth(id)).toMatchObject({ state: 'done', matched: 10, terminated: 10 })
})

it('is found again by upkeep, with its clocks, where its wake-up or its worker was lost', async () => {
  await rig.seed('lost', 100)
  const id = await rig.accept({ filter: { resourceOwners: ['lost'] } })
  const engine = rig.engine()
  await engine.takeUp()
  await vi.waitFor(async () => expect(await rig.truth(id)).toMatchObject({ state: 'done', terminated: 100, enforced: false }), { timeout: 10_000, interval: 10 })
  // G11: enforced when the last of its commits is.
  await engine.takeUp()
  expect(await rig.truth(id)).toMatchObject({ enforced: false })
  await rig.sql.query(`UPDATE commits SET enforced_at = clock_timestamp() WHERE revocation_id = $1`, [id])
  await engine.takeUp()
  expect(await rig.one(
    `SELECT r.enforced_at >= r.committed_at AND r.enforced_at >= (SELECT max(enforced_at) FROM commits WHERE revocation_id = r.id) AS after_all FROM revocations r WHERE id = $1`, [id],
  )).toEqual({ after_all: true })
  await engine.stop()
})

it('G11: is enforced no sooner than its rules are on the stream', async () => {
  const id = await rig.accept({ filter: { userIds: ['of-a-rule'] }, containment: 'rules' })
  await rig.sql.query(
    `INSERT INTO cutoff_rules (id, issuer, user_id, cutoff, reason, actor_issuer, actor_subject, revocation_id, created_at, expires_at, version)
     VALUES (gen_random_uuid(), 'i', 'of-a-rule', now(), 'x', 'i', 'admin', $1, now(), now() + interval '1 day', 7)`, [id])
  let onStream = 6n
  const engine = rig.engine({ readRuleOnStream: async () => onStream })
  await engine.advance(id)
  expect(await rig.truth(id)).toMatchObject({ state: 'done', enforced: false })
  onStream = 7n
  await engine.takeUp()
  expect(await rig.truth(id)).toMatchObject({ enforced: true })
  await engine.stop()
})
