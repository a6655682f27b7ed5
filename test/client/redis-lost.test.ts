/** Guards in processes of their own while the Redis that they follow is killed, emptied, and restored from an old file. */
import { cp, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { startCluster } from '../failures/cluster.ts'
import type { Cluster } from '../failures/cluster.ts'
import { redisMissing, startRedis } from '../harness/redis.ts'
import type { TestRedis } from '../harness/redis.ts'
import type { ServiceProcess } from '../harness/processes.ts'
import { startGuardProcess } from './guard-process.ts'
import type { GuardProcess } from './guard-process.ts'

const MAX_STALE_MS = 4_000

describe.skipIf(redisMissing)('guards in other processes, and a Redis that is lost', () => {
  let redis: TestRedis
  let cluster: Cluster
  let api: ServiceProcess
  let guards: GuardProcess[]
  let aof: string

  beforeAll(async () => {
    redis = await startRedis(['--appendfsync', 'always'])
    cluster = await startCluster({ redis })
    await cluster.start('worker')
    api = await cluster.start('api')
    await cluster.untilQueued(api)
    guards = await Promise.all([1, 2].map(() => startGuardProcess({ redis: redis.url, maxStaleMs: MAX_STALE_MS })))
    aof = join((await redis.client.config('GET', 'dir') as string[])[1] ?? '', 'appendonlydir')
  })
  afterAll(async () => {
    await Promise.all(guards.map((guard) => guard.stop()))
    await cluster.stop()
  })

  const verdicts = (guard: GuardProcess, ids: readonly string[]) =>
    guard.ask(ids.map((sessionId) => ({ issuer: cluster.issuer.url, sessionId }))).then((judged) => judged.verdicts)

  it.each<[how: string, lose: (copy: string) => Promise<void>]>([
    ['killed, and back with all that it had', async () => {
      await redis.kill()
      await redis.restart({ empty: false })
    }],
    ['killed, and back with nothing', async () => {
      await redis.kill()
      await redis.restart({ empty: true })
    }],
    ['emptied under way', async () => {
      await redis.client.flushall()
    }],
    ['restored from an old file', async (copy) => {
      await redis.kill()
      await rm(aof, { recursive: true })
      await cp(copy, aof, { recursive: true })
      await redis.restart({ empty: false })
    }],
  ])('G2: %s: what is ended stays refused, what ends meanwhile is learnt, and a guard that starts then knows it all', async (_, lose) => {
    const [old = '', before = '', during = '', after = '', alive = ''] = await cluster.live(5)
    const all = [old, before, during, after, alive]
    await cluster.end(api, old)
    await cluster.untilSettled()
    const copy = await mkdtemp(join(tmpdir(), 'curfew-test-aof-'))
    await cp(aof, copy, { recursive: true })
    await cluster.end(api, before)
    await cluster.untilSettled()
    for (const guard of guards) await vi.waitFor(async () => expect(await verdicts(guard, [old, before, alive])).toEqual(['terminated', 'terminated', 'active']), { timeout: 10_000, interval: 20 })

    let isOver = false
    // What a guard knows it never takes back; of what lives it says so, or that it cannot say.
    const watching = guards.map(async (guard) => {
      while (!isOver) {
        const [first, second, , , last] = await verdicts(guard, all)
        expect([first, second]).toEqual(['terminated', 'terminated'])
        expect(['active', 'stale']).toContain(last)
      }
    })
    await lose(copy)
    await cluster.end(api, during)
    const late = await startGuardProcess({ redis: redis.url, maxStaleMs: MAX_STALE_MS, startWithinMs: 1_000 })
    await vi.waitFor(async () => expect((await late.ask([])).staleMs ?? Infinity).toBeLessThan(MAX_STALE_MS), { timeout: 25_000, interval: 20 })
    await vi.waitFor(async () => expect(await verdicts(late, [old, before, during, alive])).toEqual(['terminated', 'terminated', 'terminated', 'active']), { timeout: 10_000, interval: 20 })
    await cluster.end(api, after)
    for (const guard of [...guards, late]) {
      await vi.waitFor(async () => expect(await verdicts(guard, all)).toEqual(['terminated', 'terminated', 'terminated', 'terminated', 'active']), { timeout: 25_000, interval: 20 })
    }
    isOver = true
    await Promise.all(watching)
    await late.stop()
    await rm(copy, { recursive: true })
  }, 60_000)
})
