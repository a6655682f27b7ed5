import { afterEach, describe, expect, it, vi } from 'vitest'
import { MAX_WAITERS, createSettledWaiters } from '../../src/api/settled-waiters.ts'
import type { Settled } from '../../src/store/deliveries.ts'

const counts = { total: 2, acknowledged: 1, pending: 1, failed: 0, moot: 0 }
const open: Settled = { routed: true, counts }
const done: Settled = { routed: true, counts: { ...counts, acknowledged: 2, pending: 0 } }

describe('createSettledWaiters', () => {
  const stops: (() => void)[] = []
  afterEach(() => stops.splice(0).forEach((stop) => stop()))

  const create = (read: (ids: readonly string[]) => Promise<ReadonlyMap<string, Settled>>) => {
    const asked: (readonly string[])[] = []
    const waiters = createSettledWaiters({ readSettled: (ids) => (asked.push(ids), read(ids)) })
    stops.push(waiters.stop)
    return { waiters, asked }
  }

  it('lets an answer go when nothing of its session is pending, and not before it is routed', async () => {
    const known = new Map<string, Settled>([['a', { routed: false, counts: { ...counts, total: 0, pending: 0 } }]])
    const { waiters, asked } = create(async () => known)
    const waiting = waiters.wait('a', 10_000)
    await vi.waitFor(() => expect(asked.length).toBeGreaterThan(1), { timeout: 10_000 })
    expect(waiters.waiting()).toBe(1)
    known.set('a', open)
    const rounds = asked.length
    await vi.waitFor(() => expect(asked.length).toBeGreaterThan(rounds + 1), { timeout: 10_000 })
    expect(waiters.waiting()).toBe(1)
    known.set('a', done)
    expect(await waiting?.settled).toEqual(done)
    expect(waiters.waiting()).toBe(0)
  })

  it('gives what is known when the time is over, also at once', async () => {
    const { waiters } = create(async () => new Map([['a', open]]))
    expect(await waiters.wait('a', 0)?.settled).toEqual(open)
    expect(await waiters.wait('unknown', 0)?.settled).toBeNull()
  })

  it('asks for everybody in one query, and never in two at once', async () => {
    let running = 0
    let most = 0
    const { waiters, asked } = create(async (ids) => {
      running += 1
      most = Math.max(most, running)
      await new Promise((resolve) => setImmediate(resolve))
      running -= 1
      return new Map(ids.map((id) => [id, done]))
    })
    const all = Array.from({ length: MAX_WAITERS }, (_, n) => waiters.wait(`s${n % 200}`, 10_000))
    expect(waiters.wait('one more', 10_000)).toBeNull()
    await Promise.all(all.flatMap((waiting) => (waiting === null ? [] : [waiting.settled])))
    expect(most).toBe(1)
    expect(asked.length).toBeLessThanOrEqual(3)
    expect(Math.max(...asked.map((ids) => ids.length))).toBe(200)
  })

  it('survives failing reads, and does not wait for a hanging one beyond its time', async () => {
    const { waiters } = create(async () => Promise.reject(new Error('away')))
    expect(await waiters.wait('a', 60)?.settled).toBeNull()
    const { waiters: hanging } = create(() => new Promise(() => {}))
    expect(await hanging.wait('a', 0)?.settled).toBeNull()
  })

  it('lets go at the stop and when the caller has gone', async () => {
    const { waiters } = create(async () => new Map([['a', open]]))
    const gone = waiters.wait('a', 10_000)
    gone?.leave()
    gone?.leave()
    await gone?.settled
    expect(waiters.waiting()).toBe(0)
    const waiting = waiters.wait('a', 10_000)
    waiters.stop()
    await waiting?.settled
    expect(waiters.wait('a', 10_000)).toBeNull()
  })
})
