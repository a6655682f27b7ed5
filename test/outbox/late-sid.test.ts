/** A participant becomes known by another sid after its session has ended: that sid is refused too, whatever is lost on the way. */
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { streamKeys, tombstoneMember } from '../../src/client/redis-names.ts'
import { createAddParticipant } from '../../src/store/session-participants.ts'
import type { LateSid } from '../../src/store/session-participants.ts'
import { readRetold } from '../../src/store/stream.ts'
import type { RetoldPage } from '../../src/store/stream.ts'
import { terminateSessions } from '../../src/store/terminations.ts'
import { startStreamRig } from '../channels/stream-rig.ts'
import type { StreamRig } from '../channels/stream-rig.ts'
import { ISSUER, command } from '../harness/seed.ts'
import { redisMissing } from '../harness/redis.ts'

/** More than one page of commits. */
const MANY = 520

describe.skipIf(redisMissing)('a sid that became known late', () => {
  let rig: StreamRig
  beforeAll(async () => { rig = await startStreamRig() })
  afterAll(() => rig.stop())
  beforeEach(async () => {
    await rig.database.sql.query('TRUNCATE sessions, session_clients, session_events, commits, stream_entries')
    await rig.redis.client.flushall()
    await rig.untilWhole()
  })

  const add = async (sessionId: string, sid: string): Promise<LateSid> => {
    const addParticipant = createAddParticipant({ db: rig.db, maxTokenLifetimeSeconds: 3_600 })
    const writer = { actor: { issuer: ISSUER, subject: 'registrar' }, issuers: [ISSUER] }
    const answer = await addParticipant(writer, { sessionId, clientId: 'late', sid, sub: null })
    if (answer.outcome !== 'terminated' || answer.late === null) throw new Error(answer.outcome)
    return answer.late
  }
  const upkeep = async () => {
    await rig.age()
    await rig.enforcement.enforcePending()
  }

  it('G5: is told by upkeep where the process that stored it is killed before it tells of it', async () => {
    const [id = ''] = await rig.live(1)
    await rig.end([id])
    await rig.untilEnforced()
    await add(id, `${id}/late`)
    await upkeep()
    expect(await rig.held(`${id}/late`)).toBe(true)
    await rig.untilEnforced()
  })

  it('G5: is told by upkeep where Redis fails just after it was told of the commit, before that was recorded', async () => {
    const [id = ''] = await rig.live(1)
    await rig.end([id])
    const late = await add(id, `${id}/late`)
    await rig.redis.kill()
    await rig.enforcement.enforceLateSid(late)
    // What was told of the commit is recorded, and not for this telling.
    await rig.enforcement.stop()
    await rig.enforcement.start()
    await rig.redis.restart({ empty: false })
    await vi.waitUntil(() => rig.connection.status === 'ready', { timeout: 10_000 })
    await upkeep()
    expect(await rig.held(`${id}/late`)).toBe(true)
  })

  it('makes no guard stale, however old the commit is', async () => {
    const [id = '', alive = ''] = await rig.live(2)
    await rig.end([id])
    await rig.untilEnforced()
    for (let minutes = 0; minutes < 10; minutes += 1) await rig.age()
    const guard = await rig.guard({ maxStaleMs: 5_000 })
    await add(id, `${id}/late`)
    await rig.keepStream.tick()
    expect(rig.check(guard, alive)).toBe('active')
    expect(guard.staleMs).toBeLessThan(5_000)
  })

  it('G2: is there again after Redis came back from a file that was written before it', async () => {
    const [id = '', ...others] = await rig.live(1 + MANY)
    for (const one of [id, ...others]) await rig.end([one])
    await rig.untilEnforced()
    // They ended ten minutes ago, and Redis is whole and fresh.
    for (let minutes = 0; minutes < 10; minutes += 1) await rig.age()
    for (let looks = 0; looks < 3; looks += 1) await rig.keepStream.tick()
    await rig.enforcement.enforceLateSid(await add(id, `${id}/late`))
    await vi.waitUntil(() => rig.held(`${id}/late`), { timeout: 10_000 })
    await rig.redis.restart({ empty: false })
    await vi.waitUntil(() => rig.connection.status === 'ready', { timeout: 10_000 })
    // As its file was: without what came after it.
    await rig.redis.client.zrem(streamKeys.tombstones, tombstoneMember(ISSUER, `${id}/late`))
    await rig.untilWhole()
    expect([await rig.held(id), await rig.held(`${id}/late`)]).toEqual([true, true])
  })

  it('is among what a guard that was away is told, however old its commit, and however many others there are', async () => {
    const ids = await rig.live(MANY)
    for (const id of ids) await terminateSessions(rig.db, [command(id)])
    const [first = '', ...others] = ids
    const sinceMs = Date.now() - 1_000
    for (const id of others) await add(id, `${id}/late`)
    await add(first, `${first}/late`)
    const told = new Set<string>()
    let page: RetoldPage | null = null
    do {
      page = await readRetold(rig.db, { sinceMs, after: page?.next ?? null, maxTokenLifetimeSeconds: 3_600 })
      for (const { sessionIds } of page.ended) for (const sid of sessionIds) told.add(sid)
    } while (page.next !== null)
    expect(ids.filter((id) => !told.has(`${id}/late`))).toEqual([])
    const nothing = await readRetold(rig.db, { sinceMs: Date.now() + 60_000, after: null, maxTokenLifetimeSeconds: 3_600 })
    expect(nothing).toEqual({ ended: [], next: null })
  })
})
