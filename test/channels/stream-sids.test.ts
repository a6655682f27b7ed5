/** The sids that tokens carry: the session's id, or what a participant was given instead. And what a rule alone would miss. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { streamKeys } from '../../src/client/redis-names.ts'
import { createAddParticipant } from '../../src/store/session-participants.ts'
import { terminateSessions } from '../../src/store/terminations.ts'
import { redisMissing } from '../harness/redis.ts'
import { ISSUER, command } from '../harness/seed.ts'
import { startStreamRig } from './stream-rig.ts'
import type { StreamRig } from './stream-rig.ts'

describe.skipIf(redisMissing)('the sid of a token', () => {
  let rig: StreamRig
  beforeAll(async () => {
    rig = await startStreamRig()
  })
  afterAll(() => rig.stop())
  beforeEach(async () => {
    await rig.database.sql.query('TRUNCATE sessions, session_clients, session_events, commits, cutoff_rules, stream_entries')
    await rig.redis.client.flushall()
    await rig.untilWhole()
  })

  it('refuses a token by whatever sid a participant knows the session: announced, from a snapshot, and after a loss', async () => {
    const ids = await rig.live(3, (id) => [id, `${id}/app`, `${id}/app`, `${id}/shop`])
    const all = ids.flatMap((id) => [id, `${id}/app`, `${id}/shop`])
    const guard = await rig.guard()
    await rig.end(ids.slice(0, 2))
    await rig.until(() => all.slice(0, 6).every((sid) => rig.check(guard, sid) === 'terminated'))
    expect(all.slice(6).map((sid) => rig.check(guard, sid))).toEqual(['active', 'active', 'active'])
    expect(await rig.redis.client.zcard(streamKeys.tombstones)).toBe(6)
    await rig.untilEnforced()
    await rig.redis.client.flushall()
    await rig.untilWhole()
    const later = await rig.guard()
    expect(all.map((sid) => rig.check(later, sid))).toEqual([...Array.from({ length: 6 }, () => 'terminated'), 'active', 'active', 'active'])
  })

  it('refuses the sid of a participant that came after the end, also where Redis was away just then', async () => {
    const add = createAddParticipant({ db: rig.db, maxTokenLifetimeSeconds: 3_600 })
    const writer = { actor: { issuer: ISSUER, subject: 'registrar' }, issuers: [ISSUER] }
    const [id = ''] = await rig.live(1)
    const late = async (sid: string) => {
      const answer = await add(writer, { sessionId: id, clientId: 'late', sid, sub: null })
      if (answer.outcome !== 'terminated' || answer.late === null) throw new Error(answer.outcome)
      await rig.enforcement.enforceLateSid(answer.late)
    }
    const guard = await rig.guard()
    await rig.end([id])
    await rig.untilEnforced()
    await late('late/1')
    await rig.until(() => rig.check(guard, 'late/1') === 'terminated')
    rig.redis.freeze()
    await late('late/2')
    rig.redis.thaw()
    await rig.age()
    await rig.enforcement.enforcePending()
    await rig.until(() => rig.check(guard, 'late/2') === 'terminated')
  })

  it('tells the other sids of a commit that Redis was not told of in time', async () => {
    const [id = ''] = await rig.live(1, (own) => [`${own}/app`])
    const { commitId } = await terminateSessions(rig.db, [command(id)])
    await rig.database.sql.query(`UPDATE commits SET committed_at = committed_at - interval '1 minute' WHERE id = $1`, [commitId])
    await rig.enforcement.enforcePending()
    expect([await rig.held(id), await rig.held(`${id}/app`)]).toEqual([true, true])
  })

  it('G2: refuses by its tombstone what a rule does not reach: a token refreshed after the cutoff that says nothing older', async () => {
    const [id = ''] = await rig.live(1, (own) => [`${own}/app`])
    const guard = await rig.guard()
    await rig.setRule()
    await rig.announceRules()
    await rig.until(() => guard.holds.rules === 1)
    // It has an `iat` and no `auth_time`, and a `sub` of the relying party's own.
    const refreshed = { issuer: ISSUER, sessionId: `${id}/app`, subject: 'pairwise', born: Date.now() / 1_000 + 60 }
    expect(guard.check(refreshed)).toBe('active')
    await rig.end([id])
    await rig.until(() => guard.check(refreshed) === 'terminated')
  })

  it('spares an excluded session by whatever sid a participant knows it', async () => {
    const [kept = '', gone = ''] = await rig.live(2, (id) => [id, `${id}/app`])
    const guard = await rig.guard()
    await rig.setRule({ user: 'u1', excludeSessions: [kept] })
    await rig.announceRules()
    await rig.until(() => rig.check(guard, gone) === 'cutoff')
    expect([kept, `${kept}/app`, `${gone}/app`].map((sid) => rig.check(guard, sid))).toEqual(['active', 'active', 'cutoff'])
  })
})
