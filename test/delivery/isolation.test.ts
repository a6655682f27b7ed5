import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { answer, hang, startReceiver } from '../harness/receiver.ts'
import type { TestReceiver } from '../harness/receiver.ts'
import { openGround } from './ground.ts'
import type { Ground } from './ground.ts'

/** Slots of this process: few, so that hanging receivers could easily take them all. */
const CONCURRENCY = 16
const HANGING = 24
const HEALTHY = 6
const EACH = 60

describe('isolation of receivers', () => {
  let ground: Ground
  let hanging: TestReceiver
  const receivers: TestReceiver[] = []
  beforeAll(async () => {
    ground = await openGround()
    hanging = await startReceiver()
    hanging.always(hang)
    receivers.push(hanging)
  })
  afterAll(async () => {
    await ground.close()
    await Promise.all(receivers.map((receiver) => receiver.close()))
  })

  const addReceivers = async (name: string, count: number, start: () => Promise<TestReceiver>): Promise<string[]> => {
    const ids: string[] = []
    for (let at = 0; at < count; at += 1) {
      const id = `${name}-${at}`
      const receiver = await start()
      if (!receivers.includes(receiver)) receivers.push(receiver)
      await ground.put(id, { url: receiver.url, clientId: id })
      await ground.endSessions(id, EACH, id)
      ids.push(id)
    }
    return ids
  }
  const allAcknowledged = async (ids: readonly string[]) => {
    const states = await Promise.all(ids.map((id) => ground.states(id)))
    return states.every(({ acknowledged = 0 }) => acknowledged === EACH)
  }

  it('G7: many hanging receivers, known and new, do not hold up the healthy', async () => {
    const lane = ground.deliverLane({ concurrency: CONCURRENCY, timeoutMs: 5_000 })
    const bad = await addReceivers('bad', HANGING, async () => hanging)
    const good = await addReceivers('good', HEALTHY, async () => startReceiver())
    // The hanging come first and, as wake-ups do, again and again.
    const waking = setInterval(() => bad.forEach((id) => void lane.deliver(id)), 50)
    await expect.poll(() => hanging.inFlight.now).toBeGreaterThan(0)
    const startedMs = Date.now()
    // As upkeep does: whoever found no slot is woken again.
    await expect.poll(async () => {
      await Promise.all(good.map((id) => lane.deliver(id)))
      return allAcknowledged(good)
    }, { timeout: 20_000 }).toBe(true)
    expect(Date.now() - startedMs).toBeLessThan(15_000)
    expect(hanging.inFlight.most).toBeLessThanOrEqual(2 * CONCURRENCY)
    clearInterval(waking)
  })

  it('G7: a receiver that begins to hang gives its quick slots up', async () => {
    const turning = await startReceiver()
    const [id = ''] = await addReceivers('turning', 1, async () => turning)
    const [healthy = ''] = await addReceivers('beside', 1, async () => startReceiver())
    await ground.put(id, { url: turning.url, clientId: id, maxConcurrency: 64 })
    const lane = ground.deliverLane({ concurrency: CONCURRENCY, timeoutMs: 4_000 })
    let answered = 0
    turning.always((response, request, count) => {
      answered += 1
      if (answered <= 40) answer(200)(response, request, count)
    })
    void lane.deliver(id)
    await expect.poll(() => turning.inFlight.now).toBeGreaterThan(0)
    const startedMs = Date.now()
    await lane.deliver(healthy)
    await expect.poll(() => allAcknowledged([healthy])).toBe(true)
    expect(Date.now() - startedMs).toBeLessThan(3_500)
  })
})
