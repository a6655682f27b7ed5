/** kill -9 of the API process that holds a request, and of everything at once. Fault F04. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { streamKeys, tombstoneMember } from '../../src/client/redis-names.ts'
import { startReceiver } from '../harness/receiver.ts'
import type { TestReceiver } from '../harness/receiver.ts'
import type { ServiceProcess } from '../harness/processes.ts'
import { redisMissing } from '../harness/redis.ts'
import { sidsOf, startCluster } from './cluster.ts'
import type { Answer, Cluster } from './cluster.ts'

describe.skipIf(redisMissing)('an API process killed', () => {
  let cluster: Cluster
  let doomed: ServiceProcess
  let other: ServiceProcess
  let worker: ServiceProcess
  beforeAll(async () => {
    cluster = await startCluster()
    ;[other, worker] = await Promise.all([cluster.start('api'), cluster.start('worker')])
  })
  beforeEach(async () => {
    doomed = await cluster.start('api')
    await Promise.all([cluster.untilQueued(doomed), cluster.untilQueued(other)])
  })
  afterEach(() => worker.signal('SIGCONT'))
  afterAll(() => cluster.stop())

  const waiting = async () => Number(await cluster.redis?.client.llen(cluster.laneKey('interactive', 'wait')))

  /** Commands that are in the queue, of an API process that is no more. */
  const orphaned = async () => {
    const ids = await cluster.live(2)
    worker.signal('SIGSTOP')
    // One after the other, so that each is a job of its own and certainly in the queue.
    const asked: Promise<Answer>[] = []
    for (const id of ids) {
      asked.push(cluster.end(doomed, id))
      await vi.waitFor(async () => expect(await waiting()).toBe(asked.length), { timeout: 10_000, interval: 2 })
    }
    const answers = Promise.allSettled(asked)
    await doomed.kill()
    expect((await answers).every(({ status }) => status === 'rejected')).toBe(true)
    expect((await cluster.committed(ids)).size).toBe(0)
    return ids
  }

  const answersOf = async (ids: readonly string[]): Promise<Map<string, Answer>> =>
    new Map(await Promise.all(ids.map(async (id) => [id, await cluster.end(other, id)] as const)))

  it('G4: its jobs are run once, and another API process answers with what they committed', async () => {
    const ids = await orphaned()
    worker.signal('SIGCONT')
    await vi.waitFor(async () => expect((await cluster.committed(ids)).size).toBe(ids.length), { timeout: 10_000 })
    await cluster.expectTruth(await answersOf(ids))
  })

  it('G3: its jobs change nothing when another API process was asked before they run', async () => {
    const ids = await orphaned()
    const answers = await answersOf(ids)
    await cluster.expectTruth(answers)
    worker.signal('SIGCONT')
    await vi.waitFor(async () => expect(await waiting()).toBe(0), { timeout: 10_000 })
    await cluster.untilQueued(other)
    await cluster.expectTruth(answers)
    await cluster.expectTruth(await answersOf(ids))
  })
})

describe.skipIf(redisMissing)('every process killed, and all of Redis lost', () => {
  let cluster: Cluster
  let receiver: TestReceiver
  beforeAll(async () => {
    cluster = await startCluster()
    receiver = await startReceiver()
  })
  afterAll(async () => {
    await cluster.stop()
    await receiver.close()
  })

  it('G4, G5: what was answered 200 stays ended, is enforced and told once there are processes again', async () => {
    const { redis, issuer } = cluster
    // No worker: the API commits by itself, and nobody hands on or tells.
    const api = await cluster.start('api')
    await cluster.putReceiver(api, 'app', receiver.url)
    const [before, without] = [await cluster.live(5, { clients: [{ clientId: 'app' }] }), await cluster.live(5, { clients: [{ clientId: 'app' }] })]
    const ids = [...before, ...without]
    const answers = new Map<string, Answer>()
    const endAll = (some: readonly string[]) => Promise.all(some.map(async (id) => answers.set(id, await cluster.end(api, id))))
    await endAll(before)
    await redis?.kill()
    await endAll(without)
    await cluster.expectTruth(answers)
    await api.kill()
    await redis?.restart({ empty: true })
    expect(receiver.requests).toEqual([])
    const [reborn] = await Promise.all([cluster.start('api'), cluster.start('worker')])
    await cluster.untilSettled()
    expect(sidsOf(receiver.tokens()).toSorted()).toEqual(ids.toSorted())
    for (const id of ids) answers.set(id, await cluster.end(reborn, id))
    await cluster.expectTruth(answers)
    expect(await redis?.client.zmscore(streamKeys.tombstones, ...without.map((id) => tombstoneMember(issuer.url, id)))).not.toContain(null)
  })
})
