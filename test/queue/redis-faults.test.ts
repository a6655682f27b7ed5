import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { TerminateAnswer } from '../../src/model.ts'
import { EVENTS_KEPT } from '../../src/queue/lanes.ts'
import type { TestRedis } from '../harness/redis.ts'
import { redisMissing } from '../harness/redis.ts'
import { createRig, expectTruth, liveSessions, openIntruder, prepareGround } from './rig.ts'
import type { Ground, Rig } from './rig.ts'

/** An answer takes at most this long while Redis is lost; the promise is 500 ms, the rest is a busy test machine's. */
const BOUND_MS = 2_000

describe.skipIf(redisMissing)('while Redis is lost', () => {
  let ground: Ground
  let redis: TestRedis
  let rig: Rig
  let stopped = false
  beforeEach(async () => {
    ground = await prepareGround('redis')
    if (ground.redis === null) throw new Error('no Redis')
    redis = ground.redis
    rig = await createRig(ground)
    stopped = false
    await rig.untilAvailable()
  })
  afterEach(async () => {
    redis.thaw()
    if (!stopped) await rig.stop()
    await ground.close()
  })

  /** Fifty that are in a worker's hands, and do not come back from there. */
  const fiftyInFlight = async () => {
    const ids = await liveSessions(ground, 50)
    rig.workerGate.close()
    const answers = rig.askAll(ids)
    await expect.poll(() => rig.worked.flat().length).toBe(50)
    return { ids, answers }
  }

  const inTime = async (answers: Promise<TerminateAnswer[]>, boundMs = BOUND_MS) => {
    const started = performance.now()
    const all = await answers
    expect(performance.now() - started).toBeLessThan(boundMs)
    return all
  }

  /** Waits for the queue, and says whether the next commands go through it alone. */
  const usesQueueAgain = async () => {
    await rig.untilAvailable()
    const own = rig.own.length
    const ids = await liveSessions(ground, 5)
    await expectTruth(ground, ids, await rig.askAll(ids))
    expect(rig.line.waiting()).toBe(0)
    return rig.own.length === own
  }

  it('G4: frozen: all who wait are answered with the truth, and whoever comes', async () => {
    const { ids, answers } = await fiftyInFlight()
    redis.freeze()
    await expectTruth(ground, ids, await inTime(answers))
    expect(rig.line.available()).toBe(false)
    const more = await liveSessions(ground, 50)
    await expectTruth(ground, more, await inTime(rig.askAll(more)))
    rig.workerGate.open()
    redis.thaw()
    expect(await usesQueueAgain()).toBe(true)
    // The worker's late commit, and jobs that were added while Redis froze, have changed nothing.
    await expectTruth(ground, ids, await rig.askAll(ids))
  })

  it('G4: frozen just as commands are being added: whether they were is of no matter', async () => {
    redis.freeze()
    const ids = await liveSessions(ground, 50)
    await expectTruth(ground, ids, await inTime(rig.askAll(ids)))
    redis.thaw()
    expect(await usesQueueAgain()).toBe(true)
    await expectTruth(ground, ids, await rig.askAll(ids))
  })

  it('G4: killed and started again: all are answered, and the queue is used again', async () => {
    const { ids, answers } = await fiftyInFlight()
    await redis.kill()
    await expectTruth(ground, ids, await inTime(answers))
    const more = await liveSessions(ground, 50)
    await expectTruth(ground, more, await inTime(rig.askAll(more)))
    rig.workerGate.open()
    await redis.restart({ empty: false })
    expect(await usesQueueAgain()).toBe(true)
  })

  it('G4: killed and started again with nothing in it', async () => {
    const { ids, answers } = await fiftyInFlight()
    await redis.restart({ empty: true })
    await expectTruth(ground, ids, await inTime(answers, 4_000))
    rig.workerGate.open()
    expect(await usesQueueAgain()).toBe(true)
  })

  it('G4: emptied without a word: all are answered, and its settings written again', async () => {
    const { ids, answers } = await fiftyInFlight()
    await redis.client.flushall()
    rig.workerGate.open()
    await expectTruth(ground, ids, await inTime(answers, 4_000))
    expect(await usesQueueAgain()).toBe(true)
    const intruder = openIntruder(ground)
    expect(await redis.client.hget(intruder.key('meta'), 'opts.maxLenEvents')).toBe(String(EVENTS_KEPT))
    await intruder.close()
  })

  it('out of memory: goes on by itself, and uses the queue again when there is room', async () => {
    await redis.client.config('SET', 'maxmemory', '1')
    const ids = await liveSessions(ground, 20)
    await expectTruth(ground, ids, await inTime(rig.askAll(ids)))
    await redis.client.config('SET', 'maxmemory', '0')
    expect(await usesQueueAgain()).toBe(true)
  })

  it('its connections cut again and again: everyone is answered', async () => {
    const ids = await liveSessions(ground, 100)
    const answers: Promise<TerminateAnswer>[] = []
    for (const [at, id] of ids.entries()) {
      answers.push(rig.ask(id))
      if (at % 20 === 10) await redis.client.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
      await new Promise((resolve) => setImmediate(resolve))
    }
    await expectTruth(ground, ids, await inTime(Promise.all(answers), 4_000))
    expect(await usesQueueAgain()).toBe(true)
  })

  it.each([
    ['frozen', async () => redis.freeze()],
    ['gone', () => redis.kill()],
  ])('%s: a stop ends in a bounded time, whatever BullMQ waits for', async (_, lose) => {
    const { ids, answers } = await fiftyInFlight()
    await lose()
    await expectTruth(ground, ids, await inTime(answers))
    const started = performance.now()
    await rig.stop()
    stopped = true
    expect(performance.now() - started).toBeLessThan(8_000)
  })

  it('from before the start: commands are committed, and the queue is used once Redis comes', async () => {
    await rig.stop()
    await redis.kill()
    rig = await createRig(ground)
    const ids = await liveSessions(ground, 10)
    await expectTruth(ground, ids, await inTime(rig.askAll(ids)))
    await redis.restart({ empty: true })
    expect(await usesQueueAgain()).toBe(true)
  })
})
