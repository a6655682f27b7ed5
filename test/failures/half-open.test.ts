/** A peer that vanishes without a word: its connections stay open and silent for ever, and new ones are taken. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'
import { startReceiver } from '../harness/receiver.ts'
import type { TestReceiver } from '../harness/receiver.ts'
import type { ServiceProcess } from '../harness/processes.ts'
import { redisMissing, startRedis } from '../harness/redis.ts'
import type { TestRedis } from '../harness/redis.ts'
import { sidsOf, startCluster } from './cluster.ts'
import type { Answer, Cluster } from './cluster.ts'
import { startProxy } from './proxy.ts'
import type { TestProxy } from './proxy.ts'

describe.each(['redis', 'postgres'] as const)('connections that are dead without saying so, queue on %s', (kind) => {
  describe.skipIf(kind === 'redis' && redisMissing)('', () => {
    let database: TestDatabase
    let redis: TestRedis | null
    let proxies: { postgres: TestProxy; redis: TestProxy | null }
    let cluster: Cluster
    let receiver: TestReceiver
    let api: ServiceProcess
    beforeAll(async () => {
      ;[database, redis, receiver] = await Promise.all([createDatabase(), kind === 'redis' ? startRedis() : null, startReceiver()])
      proxies = { postgres: await startProxy(new URL(database.url)), redis: redis === null ? null : await startProxy(new URL(redis.url)) }
      const settings = { DATABASE_URL: proxies.postgres.url, ...(proxies.redis === null ? {} : { REDIS_URL: proxies.redis.url }) }
      cluster = await startCluster({ database, redis, settings })
      ;[api] = await Promise.all([cluster.start('api'), cluster.start('worker')])
      await cluster.putReceiver(api, 'app', receiver.url)
      await cluster.untilQueued(api)
    })
    afterAll(async () => {
      proxies.postgres.close()
      proxies.redis?.close()
      await cluster.stop()
      await receiver.close()
      await database.drop()
    })

    const endAll = async (ids: readonly string[]): Promise<Map<string, Answer>> =>
      new Map(await Promise.all(ids.map(async (id) => [id, await cluster.end(api, id)] as const)))

    const throughTheQueueAgain = async () => {
      await expect.poll(async () => {
        const self = await cluster.metric(api, 'curfew_terminations_total', 'via="queue"')
        const [id = ''] = await cluster.live(1, { clients: [{ clientId: 'app' }] })
        await cluster.expectTruth(new Map([[id, await cluster.end(api, id)]]))
        return (await cluster.metric(api, 'curfew_terminations_total', 'via="queue"')) - self
      }, { timeout: 40_000, interval: 500 }).toBe(1)
    }

    const peers = kind === 'redis' ? (['redis', 'postgres'] as const) : (['postgres'] as const)
    it.each(peers)('G4, G5: to %s: who is answered is told the truth, others learn it by asking again, and the queue is used again', async (peer) => {
      await cluster.untilQueued(api)
      const ids = await cluster.live(20, { clients: [{ clientId: 'app' }] })
      proxies[peer]?.orphan()
      const answers = await endAll(ids)
      for (const { status } of answers.values()) expect(status).toBeOneOf(peer === 'redis' ? [200] : [200, 503, 504])
      await cluster.expectTruth(new Map([...answers].filter(([, { status }]) => status === 200)))
      await cluster.expectTruth(await endAll(ids))
      await throughTheQueueAgain()
      await cluster.untilSettled()
      const told = new Set(sidsOf(receiver.tokens()))
      expect(ids.filter((id) => !told.has(id))).toEqual([])
    }, 60_000)
  })
})
