/** The applications' own Redis is away or hangs; guards, who follow another, notice nothing of it. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import type { Redis } from 'ioredis'
import { createPlainRedis } from '../../src/store/redis.ts'
import { terminateSessions } from '../../src/store/terminations.ts'
import { startStreamRig } from '../channels/stream-rig.ts'
import type { StreamRig } from '../channels/stream-rig.ts'
import { command } from '../harness/seed.ts'
import { redisMissing, startRedis } from '../harness/redis.ts'
import type { TestRedis } from '../harness/redis.ts'

describe.skipIf(redisMissing)('a cache that hangs beside a stream that does not', () => {
  let rig: StreamRig
  let caches: TestRedis
  let cache: Redis
  beforeAll(async () => {
    caches = await startRedis()
    cache = createPlainRedis(caches.url, () => {})
    rig = await startStreamRig({ cache, keyTemplates: ['sess:{sid}'] })
  })
  afterAll(async () => {
    cache.disconnect()
    await rig.stop()
    await caches.stop()
  })
  beforeEach(async () => {
    await vi.waitUntil(() => cache.status === 'ready', { timeout: 10_000 })
    await rig.untilWhole()
  })
  afterEach(() => caches.thaw())
  const untold = async () => (await rig.database.sql.query('SELECT FROM commits WHERE enforced_at IS NULL')).rowCount

  it('G7: every tombstone is on the stream, and guards stay fresh; once it is back the keys go too', async () => {
    const guard = await rig.guard({ maxStaleMs: 2_000 })
    const [alive = '', ...ids] = await rig.live(301)
    await Promise.all(ids.map((id) => caches.client.set(`sess:${id}`, 'x')))
    caches.freeze()
    for (let at = 0; at < ids.length; at += 4) await Promise.all(ids.slice(at, at + 4).map((id) => rig.end([id])))
    // For longer than it may be stale, upkeep looks as it does, and fails with the cache.
    const since = performance.now()
    let looking = Promise.resolve()
    await vi.waitUntil(async () => {
      looking = looking.then(() => rig.enforcement.enforcePending()).catch(() => {})
      await rig.keepStream.tick()
      const isLong = performance.now() - since > 3_000
      return isLong && ids.every((id) => rig.check(guard, id) === 'terminated') && rig.check(guard, alive) === 'active'
    }, { timeout: 30_000, interval: 200 })
    expect(await untold()).toBeGreaterThan(0)
    caches.thaw()
    await looking
    await vi.waitUntil(async () => {
      await rig.age()
      await rig.enforcement.enforcePending().catch(() => {})
      return (await untold()) === 0
    }, { timeout: 15_000, interval: 50 })
    expect(await caches.client.exists(...ids.map((id) => `sess:${id}`))).toBe(0)
  })

  it('G7: upkeep puts every commit on the stream, also those behind the first that it cannot delete the keys of', async () => {
    const ids = await rig.live(250)
    for (const id of ids) await terminateSessions(rig.db, [command(id)])
    await rig.age()
    caches.freeze()
    await expect(rig.enforcement.enforcePending()).rejects.toThrow()
    caches.thaw()
    expect(await Promise.all(ids.map(rig.held))).toEqual(ids.map(() => true))
  })
})

describe.skipIf(redisMissing)('a stream that was away for one log-out', () => {
  it('is told of chunks again soon after, though no other log-out comes', async () => {
    const rig = await startStreamRig()
    await rig.untilWhole()
    const [lost = '', ...chunk] = await rig.live(3)
    await rig.redis.kill()
    await rig.end([lost])
    await rig.redis.restart({ empty: false })
    await vi.waitUntil(() => rig.connection.status === 'ready', { timeout: 10_000 })
    const { commitId, ended } = await terminateSessions(rig.db, chunk.map((id) => command(id)))
    await vi.waitUntil(async () => {
      await rig.enforcement.enforceChunk(commitId ?? '', ended)
      return (await Promise.all(chunk.map(rig.held))).every((held) => held)
    }, { timeout: 10_000, interval: 50 })
    await rig.stop()
  })
})
