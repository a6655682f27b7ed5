import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { answer, startReceiver } from '../harness/receiver.ts'
import type { Answering, TestReceiver } from '../harness/receiver.ts'
import { ISSUER } from '../harness/seed.ts'
import { openGround } from './ground.ts'
import type { Ground } from './ground.ts'

/** The times are the receiver's, which may have been busy when the first request came. */
const ARRIVES_LATE_MS = 150
const spanOf = (times: readonly number[]): number => Math.max(...times) - Math.min(...times)

describe('a receiver that comes back', () => {
  let ground: Ground
  let receiver: TestReceiver
  beforeAll(async () => { ground = await openGround() })
  afterAll(() => ground.close())
  beforeEach(async () => { receiver = await startReceiver() })
  afterEach(() => receiver.close())

  /** As an hour of failing leaves it: a backlog that is due, an open breaker whose time is just over. */
  const leaveBehind = async (id: string, count: number) => {
    await ground.sql.query(
      `INSERT INTO deliveries (receiver_id, session_id, client_id, sid, sub, issuer, attempts, created_at, due_at, moot_at)
       SELECT $1, $1 || n, 'app', $1 || n, 'u', $3, 3, now() - interval '1 h', now() - make_interval(secs => n::float8 / 1000), now() + interval '1 d'
       FROM generate_series(1, $2::int) n`, [id, count, ISSUER])
    await ground.sql.query('UPDATE receivers SET consecutive_failures = 12, broken_until = now(), last_success_at = now() WHERE id = $1', [id])
  }
  const drain = (id: string, lane = ground.deliverLane()) => expect.poll(async () => {
    await lane.deliver(id)
    return ground.states(id)
  }, { timeout: 25_000 })

  it('F49: is told an hour’s backlog of 5,000 from one probe on, with one attempt more for each answer, never above its cap', async () => {
    const cap = 6
    await ground.put('back', { url: receiver.url, maxConcurrency: cap })
    await leaveBehind('back', 5_000)
    let answered = 0
    const early: { inFlight: number; answered: number }[] = []
    const slowly: Answering = (response, request, count) => {
      if (count < 100) early.push({ inFlight: receiver.inFlight.now, answered })
      const send = () => {
        answered += 1
        answer(200)(response, request, count)
      }
      // The first answers take long enough for a burst to show.
      if (count < 100) setTimeout(send, 20)
      else send()
    }
    receiver.always(slowly)
    await drain('back').toEqual({ acknowledged: 5_000 })
    expect(receiver.inFlight.most).toBe(cap)
    for (const at of early) expect(at.inFlight).toBeLessThanOrEqual(1 + at.answered)
    expect(receiver.requests).toHaveLength(5_000)
  })

  it('F49: keeps to its rate while it is told what it missed', async () => {
    await ground.put('paced', { url: receiver.url, ratePerSecond: 40 })
    await leaveBehind('paced', 60)
    await drain('paced').toEqual({ acknowledged: 60 })
    const times = receiver.requests.map(({ atMs }) => atMs)
    expect(spanOf(times)).toBeGreaterThanOrEqual(59 * 25 - ARRIVES_LATE_MS)
  })

  it('keeps to its rate over many small drains, by whichever process', async () => {
    await ground.put('sparse', { url: receiver.url, ratePerSecond: 4 })
    const lanes = [ground.deliverLane(), ground.deliverLane()]
    let stopped = false
    const wakeAgain = async (): Promise<void> => {
      while (!stopped) {
        await Promise.all(lanes.map((lane) => lane.deliver('sparse')))
        // A receiver that rests in both lanes is answered at once, and must not keep the timers from running.
        await new Promise((resolve) => setImmediate(resolve))
      }
    }
    const waking = wakeAgain()
    for (let at = 0; at < 5; at += 1) {
      await ground.endSessions(`sparse-${at}`, 1)
      await expect.poll(() => receiver.requests.length).toBe(at + 1)
    }
    stopped = true
    await waking
    const times = receiver.requests.map(({ atMs }) => atMs)
    expect(spanOf(times)).toBeGreaterThanOrEqual(4 * 250 - ARRIVES_LATE_MS)
  })
})
