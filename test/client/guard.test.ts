/** A guard whose surroundings misbehave: clocks that jump, tokens that do not come. */
import { afterEach, describe, expect, it, vi } from 'vitest'
import { createGuardOver } from '../../src/client/guard.ts'
import { createGuard } from '../../src/client/index.ts'
import type { Source } from '../../src/client/source.ts'
import { answer, startReceiver } from '../harness/receiver.ts'

const HOUR_MS = 3_600_000
const ISSUER = 'https://id.example'

afterEach(() => {
  vi.restoreAllMocks()
})

/** A source that has told one entry and then says nothing. */
const telling = (sessionIds: string[], expiresMs: number): Source => ({
  follow: async (sink, signal) => {
    sink.learn({ ended: [{ issuer: ISSUER, sessionIds, expiresMs: sessionIds.map(() => expiresMs) }] })
    sink.fresh(performance.now())
    await new Promise((resolve) => signal.addEventListener('abort', resolve))
  },
})

describe('a guard', () => {
  it('forgets nothing because its clock is ahead for a moment', async () => {
    const ids = Array.from({ length: 5_000 }, (_, n) => `s${n}`)
    const guard = await createGuardOver(telling(ids, Date.now() + HOUR_MS))
    const real = Date.now
    let sweeps = 0
    vi.spyOn(Date, 'now').mockImplementation(() => {
      sweeps += 1
      return real() + 48 * HOUR_MS
    })
    await vi.waitUntil(() => sweeps >= 2, { timeout: 5_000, interval: 20 })
    vi.restoreAllMocks()
    expect(ids.filter((sessionId) => guard.check({ issuer: ISSUER, sessionId }) !== 'terminated')).toEqual([])
    await guard.close()
  })

  it('does not wait for ever for a token that does not come', async () => {
    let asked = 0
    const errors: unknown[] = []
    const token = () => {
      asked += 1
      return new Promise<string>(() => {})
    }
    const guard = await createGuard({ url: 'http://127.0.0.1:9', token, startWithinMs: 10, onError: (error) => errors.push(error) })
    await vi.waitUntil(() => asked >= 2, { timeout: 15_000, interval: 50 })
    expect(errors.length).toBeGreaterThan(0)
    await guard.close()
  })

  it('follows no redirect, which would carry its token elsewhere, and says that there is one', async () => {
    const elsewhere = await startReceiver()
    const moved = await startReceiver()
    moved.always(answer(307, { headers: { location: elsewhere.url } }))
    const errors: unknown[] = []
    const guard = await createGuard({ url: moved.url, token: 'secret', startWithinMs: 10, onError: (error) => errors.push(error) })
    await vi.waitUntil(() => errors.length > 0, { timeout: 10_000, interval: 20 })
    expect(String(errors[0])).toContain('/v1/stream/snapshot answered with a redirect')
    await guard.close()
    expect(elsewhere.requests).toEqual([])
    await Promise.all([elsewhere.close(), moved.close()])
  })
})
