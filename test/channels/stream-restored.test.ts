/** What upkeep and guards make of a stream in Redis that has lost something, or whose clock has jumped. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { streamKeys } from '../../src/client/redis-names.ts'
import { createKeepStream } from '../../src/outbox/keep-stream.ts'
import { createTelemetry } from '../../src/telemetry.ts'
import { redisMissing } from '../harness/redis.ts'
import { ISSUER } from '../harness/seed.ts'
import { startStreamRig } from './stream-rig.ts'
import type { StreamRig } from './stream-rig.ts'

describe.skipIf(redisMissing)('a stream in Redis that is not what it was', () => {
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
  const rulesHeld = () => rig.redis.client.zcard(streamKeys.rules)

  it('G2: has its rules again before it counts as whole', async () => {
    await rig.setRule({ user: 'u9' })
    await rig.redis.client.flushall()
    let heldAtOpening: number | null = null
    const stream: typeof rig.stream = {
      ...rig.stream,
      restore: async (options) => {
        const restoring = await rig.stream.restore(options)
        return restoring && { ...restoring, open: async (commit) => {
          heldAtOpening = await rulesHeld()
          return restoring.open(commit)
        } }
      },
    }
    await createKeepStream({ db: rig.db, stream, maxSessionLifetimeSeconds: 60, maxTokenLifetimeSeconds: 60, log: createTelemetry({ level: 'silent' }).log }).tick()
    expect(heldAtOpening).toBe(1)
    expect((await rig.stream.state()).whole).toBe(true)
  })

  it('G2: is given its rules again too where it lacks commits that no restart explains', async () => {
    await rig.setRule({ user: 'u9' })
    await rig.announceRules()
    const [id = ''] = await rig.live(1)
    const state = await rig.redis.client.hgetall(streamKeys.state)
    await rig.end([id])
    await expect.poll(async () => (await rig.database.sql.query('SELECT FROM commits WHERE enforced_at IS NULL')).rowCount).toBe(0)
    // Whatever lost the tombstone has lost the rule as well; the state says that both are there.
    await rig.redis.client.del(streamKeys.tombstones, streamKeys.rules, streamKeys.state)
    await rig.redis.client.hset(streamKeys.state, state)
    await rig.untilWhole()
    await rig.keepStream.tick()
    expect(await rulesHeld()).toBe(1)
    const guard = await rig.guard()
    expect(guard.check({ issuer: ISSUER, subject: 'u9', born: 0 })).toBe('cutoff')
  })

  it('is not written again for a commit that nothing is left of', async () => {
    const before = await rig.redis.client.hget(streamKeys.state, 'epoch')
    const { rows: [{ id }] } = await rig.database.sql.query(`INSERT INTO commits (sessions, committed_at) VALUES (0, now() - interval '1 minute') RETURNING id`)
    await rig.enforcement.enforcePending()
    await rig.keepStream.tick()
    expect((await rig.stream.state()).commit).toBe(Number(id))
    expect(await rig.redis.client.hget(streamKeys.state, 'epoch')).toBe(before)
  })

  it('says nothing of how fresh it is where its clock was turned back, until upkeep says so again', async () => {
    await rig.redis.client.hset(streamKeys.state, 'freshMs', Date.now() + 3_600_000)
    const guard = await rig.guard({ startWithinMs: 1_500 })
    expect(guard.staleMs).toBe(Infinity)
    await rig.keepStream.tick()
    await rig.until(() => guard.staleMs < 5_000)
  })
})
