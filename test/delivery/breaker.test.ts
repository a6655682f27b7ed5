import { randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { answer, startReceiver } from '../harness/receiver.ts'
import type { TestReceiver } from '../harness/receiver.ts'
import { openGround } from './ground.ts'
import type { Ground } from './ground.ts'

describe('the breaker of a receiver', () => {
  let ground: Ground
  let receiver: TestReceiver
  let id: string
  let client: string

  beforeAll(async () => { ground = await openGround() })
  afterAll(() => ground.close())
  beforeEach(async () => {
    receiver = await startReceiver()
    id = randomUUID()
    client = `client-${id}`
    await ground.put(id, { url: receiver.url, clientId: client })
  })
  afterEach(() => receiver.close())

  const end = (count: number) => ground.endSessions(id, count, client)
  const row = async () =>
    (await ground.sql.query<{ consecutive_failures: number; open_for: number | null }>(
      'SELECT consecutive_failures, extract(epoch FROM broken_until - now())::float8 AS open_for FROM receivers WHERE id = $1', [id])).rows[0]

  it('F39: opens after five failures in a row, and an open breaker uses no attempts', async () => {
    receiver.always(answer(500))
    await end(40)
    const lane = ground.deliverLane({ breaker: { failures: 5, minMs: 60_000, maxMs: 60_000 } })
    await lane.deliver(id)
    const tried = receiver.requests.length
    expect(tried).toBeGreaterThanOrEqual(5)
    expect(tried).toBeLessThanOrEqual(8)
    expect(await row()).toMatchObject({ consecutive_failures: 5, open_for: expect.any(Number) as number })
    for (let at = 0; at < 3; at += 1) await lane.deliver(id)
    expect(receiver.requests).toHaveLength(tried)
    expect((await ground.deliveries(id)).reduce((sum, { attempts }) => sum + attempts, 0)).toBe(tried)
  })

  it('F39: probes with one attempt, stays open for longer on failure, and closes on success', async () => {
    receiver.always(answer(500))
    await end(40)
    const lane = ground.deliverLane({ random: () => 0.999_999, breaker: { failures: 5, minMs: 60_000, maxMs: 300_000 } })
    await lane.deliver(id)
    expect((await row())?.open_for).toBeGreaterThan(50)
    const probe = async () => {
      await ground.sql.query('UPDATE receivers SET broken_until = now() WHERE id = $1', [id])
      const before = receiver.requests.length
      await lane.deliver(id)
      return receiver.requests.length - before
    }
    expect(await probe()).toBe(1)
    expect((await row())?.open_for).toBeGreaterThan(110)
    receiver.always(answer(200))
    await probe()
    expect(await row()).toEqual({ consecutive_failures: 0, open_for: null })
    expect((await ground.deliveries(id)).filter(({ state }) => state === 'acknowledged').length).toBeGreaterThanOrEqual(30)
  })

  it('probes also where the process that opened it is gone', async () => {
    receiver.always(answer(500))
    await end(10)
    await ground.sql.query('UPDATE receivers SET consecutive_failures = 9, broken_until = NULL WHERE id = $1', [id])
    await ground.deliverLane().deliver(id)
    expect(receiver.requests).toHaveLength(1)
  })

  it('is closed by new settings', async () => {
    await ground.sql.query(`UPDATE receivers SET consecutive_failures = 9, broken_until = now() + interval '1 h' WHERE id = $1`, [id])
    const { receiver: after } = await ground.put(id, { url: `${receiver.url}?v=2`, clientId: client })
    expect(after).toMatchObject({ consecutiveFailures: 0, brokenUntil: null })
  })
})
