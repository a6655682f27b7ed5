/** SIGTERM while Redis is away, when BullMQ waits for it for ever. Fault F55. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { redisMissing } from '../harness/redis.ts'
import { SHUTDOWN_TIMEOUT_MS, startCluster, stopInTime } from './cluster.ts'
import type { Answer, Cluster } from './cluster.ts'
import type { ServiceProcess } from '../harness/processes.ts'

describe.skipIf(redisMissing)('SIGTERM', () => {
  let cluster: Cluster
  beforeAll(async () => {
    cluster = await startCluster({ settings: { SHUTDOWN_TIMEOUT: String(SHUTDOWN_TIMEOUT_MS) } })
  })
  afterAll(() => cluster.stop())

  const endAll = async (process: ServiceProcess, ids: readonly string[]): Promise<Map<string, Answer>> =>
    new Map(await Promise.all(ids.map(async (id) => [id, await cluster.end(process, id)] as const)))

  it.each([
    ['frozen', async (redis: NonNullable<Cluster['redis']>) => redis.freeze()],
    ['gone', (redis: NonNullable<Cluster['redis']>) => redis.kill()],
  ])('with Redis %s: each process ends by its own deadline, and nothing that was answered is lost', async (_, lose) => {
    const { redis } = cluster
    if (redis === null) throw new Error('no Redis')
    const [api, worker] = await Promise.all([cluster.start('api'), cluster.start('worker')])
    await cluster.untilQueued(api)
    await lose(redis)
    const ids = await cluster.live(20)
    const answers = await endAll(api, ids)
    const codes = await Promise.all([stopInTime(api), stopInTime(worker)])
    for (const code of codes) expect(code).toBeOneOf([0, 1])
    await cluster.expectTruth(answers)
    redis.thaw()
    await redis.restart({ empty: true })
    const reborn = await Promise.all([cluster.start('api'), cluster.start('worker')])
    await cluster.expectTruth(await endAll(reborn[0], ids))
    await cluster.untilSettled()
    await Promise.all(reborn.map((process) => process.kill()))
  })
})
