import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createBreaker } from '../../src/delivery/breaker.ts'
import { cleanText } from '../../src/delivery/outcome.ts'
import { createPace } from '../../src/delivery/pace.ts'
import { parseRetryAfter } from '../../src/delivery/retry-after.ts'
import { retryDelayMs } from '../../src/delivery/retry.ts'
import { createSlots } from '../../src/delivery/slots.ts'
import type { Pace, Slot } from '../../src/delivery/slots.ts'

const fraction = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })

describe('when a delivery is tried again', () => {
  it('is between one second and one hour, whatever is asked', () => {
    fc.assert(fc.property(fc.integer({ min: 1, max: 1_000 }), fc.option(fc.double({ noNaN: true }), { nil: null }), fraction, (attempts, retryAfterMs, random) => {
      const delay = retryDelayMs({ attempts, retryAfterMs, random: () => random })
      expect(delay).toBeGreaterThanOrEqual(1_000)
      expect(delay).toBeLessThanOrEqual(3_600_000)
    }))
  })

  it('grows with each attempt and uses the whole range (full jitter)', () => {
    const longest = [1, 2, 3, 8, 12, 40].map((attempts) => retryDelayMs({ attempts, retryAfterMs: null, random: () => 0.999_999 }))
    expect(longest.map((ms) => Math.round(ms / 1_000))).toEqual([2, 4, 8, 256, 3_600, 3_600])
    expect(retryDelayMs({ attempts: 12, retryAfterMs: null, random: () => 0 })).toBe(1_000)
  })
})

describe('Retry-After', () => {
  const nowMs = Date.UTC(2026, 0, 1)
  it.each([
    ['0', 0], ['120', 120_000], [' 7 ', 7_000], ['999999999999', 999_999_999_999_000], ['Thu, 01 Jan 2026 00:01:00 GMT', 60_000], ['Thu, 01 Jan 1970 00:00:00 GMT', 0],
    ['-5', null], ['1.5', null], ['soon', null], ['', null], [undefined, null], ['1e3', null], ['9999999999999', null], ['Thu, 99 Foo 2026', null],
  ])('F48: reads %j as %j ms', (header, expected) => {
    expect(parseRetryAfter(header, nowMs)).toBe(expected)
  })

  it('F48: never yields anything but null or a length of time', () => {
    fc.assert(fc.property(fc.string(), (header) => {
      const ms = parseRetryAfter(header, nowMs)
      expect(ms === null || (Number.isFinite(ms) && ms >= 0)).toBe(true)
    }))
  })
})

describe('the breaker', () => {
  const policy = { failures: 5, minMs: 1_000, maxMs: 300_000 }
  const open = (consecutiveFailures: number, random = 0.5) => createBreaker({ consecutiveFailures, random: () => random, policy })

  it('opens on the fifth failure in a row and not before', () => {
    const breaker = open(0)
    for (let at = 0; at < 4; at += 1) breaker.failed(null)
    expect(breaker.isOpen()).toBe(false)
    breaker.answered()
    for (let at = 0; at < 4; at += 1) breaker.failed(null)
    expect(breaker.isOpen()).toBe(false)
    breaker.failed(null)
    expect(breaker.isOpen()).toBe(true)
  })

  it('counts what was in flight when it opened as one failure', () => {
    const breaker = open(0)
    for (let at = 0; at < 50; at += 1) breaker.failed(null)
    expect(breaker.consecutiveFailures()).toBe(5)
  })

  it('stays open for longer with each failed probe, up to five minutes, with jitter', () => {
    const openFor = (failures: number, random: number): number => {
      const breaker = open(failures, random)
      expect(breaker.probing()).toBe(failures >= 5)
      breaker.failed(null)
      return breaker.openForMs() ?? 0
    }
    expect([4, 5, 6, 10, 100].map((failures) => openFor(failures, 1))).toEqual([1_000, 2_000, 4_000, 64_000, 300_000])
    expect(openFor(100, 0)).toBe(150_000)
  })

  it('leaves a receiver alone for as long as it asks, up to five minutes', () => {
    const asked = (retryAfterMs: number): number | null => {
      const breaker = open(4)
      breaker.failed(retryAfterMs)
      return breaker.openForMs()
    }
    expect(asked(30_000)).toBe(30_000)
    expect(asked(3_600_000)).toBe(300_000)
  })
})

describe('slots', () => {
  it('never grants more than the total, sets no more aside than that, and loses none', () => {
    fc.assert(fc.property(fc.integer({ min: 3, max: 64 }), fc.array(fc.tuple(fc.constantFrom<Pace>('quick', 'slow', 'unproven'), fc.nat(2)), { maxLength: 300 }), (total, steps) => {
      const slots = createSlots(total)
      const free = () => slots.free('quick') + slots.free('slow') + slots.free('unproven')
      const held: Slot[] = []
      for (const [pace, action] of steps) {
        if (action === 0) {
          const slot = slots.tryTake(pace)
          if (slot !== null) held.push(slot)
        } else if (action === 1) held.at(-1)?.setAside()
        else held.shift()?.release()
        expect(free() + held.length - slots.aside()).toBe(total)
        expect(slots.aside()).toBeLessThanOrEqual(total)
      }
      for (const slot of held) {
        slot.release()
        slot.release()
      }
      expect([free(), slots.aside()]).toEqual([total, 0])
    }))
  })

  it('serves those who wait in their order', () => {
    const slots = createSlots(3)
    const first = slots.tryTake('quick')
    const served: string[] = []
    slots.wait('quick', (slot) => { served.push('a'); slot.release() })
    const leave = slots.wait('quick', () => served.push('left'))
    slots.wait('quick', () => served.push('b'))
    leave()
    first?.release()
    expect(served).toEqual(['a', 'b'])
  })
})

describe('the pace of a receiver', () => {
  it('starts with one attempt, rises with quick answers to its own limit and halves on failure', () => {
    const pace = createPace({ maxConcurrency: 10, known: 'unproven' })
    expect(pace.limit()).toBe(1)
    for (let at = 0; at < 20; at += 1) pace.answered(10)
    expect(pace.limit()).toBe(10)
    pace.failed()
    expect(pace.limit()).toBe(5)
    pace.overdue()
    expect([pace.pace(), pace.limit()]).toEqual(['slow', 2])
    pace.answered(900)
    expect(pace.pace()).toBe('slow')
    pace.answered(20)
    expect(pace.pace()).toBe('quick')
  })
})

describe('a receiver’s words', () => {
  it('are at most 1,024 characters without control characters, and always fit into JSON and Postgres', () => {
    fc.assert(fc.property(fc.string({ unit: 'binary', maxLength: 3_000 }), (text) => {
      const clean = cleanText(text)
      if (clean === null) return
      expect(clean.length).toBeLessThanOrEqual(1_024)
      expect(clean).not.toMatch(/[\p{Cc}\p{Cs}]/u)
    }))
  })
})
