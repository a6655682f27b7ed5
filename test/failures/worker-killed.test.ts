/** kill -9 of the worker that holds a command, before its commit and after it. Faults F01, F02. */
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import type { ServiceProcess } from '../harness/processes.ts'
import { redisMissing } from '../harness/redis.ts'
import { startCluster } from './cluster.ts'
import type { Answer, Cluster } from './cluster.ts'
import { createHold } from './hold.ts'
import type { Hold } from './hold.ts'

describe.skipIf(redisMissing)('a worker killed', () => {
  let cluster: Cluster
  let api: ServiceProcess
  let worker: ServiceProcess
  let hold: (sessionId: string) => Promise<Hold>
  beforeAll(async () => {
    cluster = await startCluster()
    hold = await createHold(cluster.database.sql)
    ;[api, worker] = await Promise.all([cluster.start('api'), cluster.start('worker')])
    await cluster.untilQueued(api)
  })
  afterAll(() => cluster.stop())

  /** A session whose commit a worker has in its transaction, and whoever waits for the answer. */
  const heldByWorker = async () => {
    const [id = ''] = await cluster.live(1)
    const held = await hold(id)
    const answer = cluster.end(api, id)
    const [pid = 0] = await held.caught()
    expect(await cluster.committed([id])).toEqual(new Map())
    return { id, held, answer, pid }
  }

  const expectOneEvent = async (id: string, answer: Answer) => {
    await cluster.expectTruth(new Map([[id, answer]]))
    await cluster.expectTruth(new Map([[id, await cluster.end(api, id)]]))
  }

  const restartWorker = async () => {
    worker = await cluster.start('worker')
    await cluster.untilQueued(api)
  }

  it('G1, G3: in its transaction, which is lost with it: another commit is the first, and its details are the answer', async () => {
    const { id, held, answer, pid } = await heldByWorker()
    await worker.kill()
    await cluster.database.sql.query('SELECT pg_terminate_backend($1)', [pid])
    await held.release()
    await expectOneEvent(id, await answer)
    await restartWorker()
  })

  it('G1, G3: in its transaction, which Postgres commits without it: that commit is the answer', async () => {
    const { id, held, answer } = await heldByWorker()
    await worker.kill()
    await held.release()
    await expectOneEvent(id, await answer)
    await restartWorker()
  })

  it('G1, G3: after its commit and before its answer: the answer is the committed event, read', async () => {
    const { redis } = cluster
    if (redis === null) throw new Error('no Redis')
    const read = await cluster.metric(api, 'curfew_terminations_total', 'via="read"')
    const { id, held, answer } = await heldByWorker()
    // Redis answers PING as ever, and takes no result.
    await redis.client.client('PAUSE', 30_000, 'WRITE')
    await held.release()
    await vi.waitFor(async () => expect((await cluster.committed([id])).size).toBe(1), { timeout: 10_000, interval: 5 })
    await worker.kill()
    expect((await answer).ms).toBeLessThan(2_000)
    await expectOneEvent(id, await answer)
    expect(await cluster.metric(api, 'curfew_terminations_total', 'via="read"')).toBe(read + 1)
    await redis.client.client('UNPAUSE')
    await restartWorker()
  })

  it('G3: its jobs are taken up by another worker, and change nothing', async () => {
    const { redis, laneKey, database } = cluster
    const { id, held, answer } = await heldByWorker()
    expect(await redis?.client.llen(laneKey('interactive', 'active'))).toBeGreaterThan(0)
    await worker.kill()
    await held.release()
    await expectOneEvent(id, await answer)
    const events = async () => (await database.sql.query('SELECT count(*) FROM session_events')).rows
    const before = await events()
    await restartWorker()
    await vi.waitFor(async () => expect(await redis?.client.llen(laneKey('interactive', 'active'))).toBe(0), { timeout: 30_000, interval: 100 })
    expect(await redis?.client.zcard(laneKey('interactive', 'failed'))).toBe(0)
    expect(await events()).toEqual(before)
    await expectOneEvent(id, await answer)
  }, 60_000)
})
