/** Redis emptied, frozen and gone while requests are under way and keep coming. Faults F10, F12, F13, F18, F20. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { streamKeys, tombstoneMember } from '../../src/client/redis-names.ts'
import { startReceiver } from '../harness/receiver.ts'
import type { TestReceiver } from '../harness/receiver.ts'
import type { ServiceProcess } from '../harness/processes.ts'
import { redisMissing } from '../harness/redis.ts'
import type { TestRedis } from '../harness/redis.ts'
import { WORST_ANSWER_MS, sidsOf, startCluster } from './cluster.ts'
import type { Cluster } from './cluster.ts'
import { startLoad } from './load.ts'

/** With one request each 40 ms, for how many answers Redis stays away: about three seconds. */
const LONG = 75
const EVERY_MS = 40

describe.skipIf(redisMissing)('Redis lost under load', () => {
  let cluster: Cluster
  let redis: TestRedis
  let receiver: TestReceiver
  let api: ServiceProcess
  let worker: ServiceProcess
  beforeAll(async () => {
    cluster = await startCluster()
    if (cluster.redis === null) throw new Error('no Redis')
    redis = cluster.redis
    receiver = await startReceiver()
    ;[api, worker] = await Promise.all([cluster.start('api'), cluster.start('worker')])
    await cluster.putReceiver(api, 'app', receiver.url)
  })
  afterAll(async () => {
    await cluster.stop()
    await receiver.close()
  })

  it.each<[how: string, fault: (during: () => Promise<void>) => Promise<void>]>([
    ['emptied', async (during) => {
      await redis.client.flushall()
      await during()
    }],
    ['killed, and started again with nothing in it', async (during) => {
      await redis.kill()
      await during()
      await redis.restart({ empty: true })
    }],
    ['frozen', async (during) => {
      redis.freeze()
      await during()
      redis.thaw()
    }],
    ['its connections cut again and again', async (during) => {
      const cut = setInterval(() => void redis.client.call('CLIENT', 'KILL', 'TYPE', 'NORMAL', 'SKIPME', 'YES'), 300)
      await during()
      clearInterval(cut)
    }],
  ])('G4, G5: %s: everyone is answered with the truth in time, then the queue is used, and all is enforced and told', async (_, fault) => {
    await cluster.untilQueued(api)
    const ids = await cluster.live(LONG * 3, { clients: [{ clientId: 'app' }] })
    const linesBefore = api.lines.length + worker.lines.length
    const load = startLoad({ ids, everyMs: EVERY_MS, ask: (id) => cluster.end(api, id) })
    await load.untilAnswered(15)
    await fault(() => load.untilAnswered(LONG))
    await load.untilAnswered(15)
    const answers = await load.stop()
    await cluster.expectTruth(answers)
    expect(Math.max(...[...answers.values()].map(({ ms }) => ms))).toBeLessThan(WORST_ANSWER_MS)

    await cluster.untilQueued(api)
    expect(await cluster.metric(api, 'curfew_queue_available')).toBe(1)
    const self = await cluster.metric(api, 'curfew_terminations_total', 'via="self"')
    const [after = ''] = await cluster.live(1, { clients: [{ clientId: 'app' }] })
    await cluster.expectTruth(new Map([[after, await cluster.end(api, after)]]))
    expect(await cluster.metric(api, 'curfew_terminations_total', 'via="self"')).toBe(self)

    await cluster.untilSettled()
    const told = new Set(sidsOf(receiver.tokens()))
    expect([...answers.keys()].filter((id) => !told.has(id))).toEqual([])
    // No flood of lines, however many commands failed meanwhile.
    expect(api.lines.length + worker.lines.length - linesBefore).toBeLessThan(200)
  }, 45_000)

  it('G4: what is ended while Redis is gone has its tombstone when Redis is back', async () => {
    await cluster.untilQueued(api)
    await redis.kill()
    const ids = await cluster.live(20)
    const answers = new Map(await Promise.all(ids.map(async (id) => [id, await cluster.end(api, id)] as const)))
    await cluster.expectTruth(answers)
    // Readiness is told from a moment ago.
    await expect.poll(() => cluster.readiness(api)).toMatchObject({ ready: true, queue: 'away' })
    await redis.restart({ empty: true })
    await cluster.untilSettled()
    expect(await redis.client.zmscore(streamKeys.tombstones, ...ids.map((id) => tombstoneMember(cluster.issuer.url, id)))).not.toContain(null)
    await cluster.untilQueued(api)
  })

  it('G4: processes that start while Redis is gone commit by themselves, and use the queue when Redis is back', async () => {
    await redis.kill()
    const [late] = await Promise.all([cluster.start('api'), cluster.start('worker')])
    const ids = await cluster.live(10, { clients: [{ clientId: 'app' }] })
    await cluster.expectTruth(new Map(await Promise.all(ids.map(async (id) => [id, await cluster.end(late, id)] as const))))
    await redis.restart({ empty: true })
    await cluster.untilQueued(late)
    await cluster.untilSettled()
    const told = new Set(sidsOf(receiver.tokens()))
    expect(ids.filter((id) => !told.has(id))).toEqual([])
  })
})
