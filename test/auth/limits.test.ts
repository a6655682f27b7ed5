import { describe, expect, it } from 'vitest'
import type { Reach } from '../../src/auth/caller.ts'
import { createLimits } from '../../src/auth/limits.ts'
import { callerWith } from './bench.ts'

const createLimited = () => {
  let nowMs = 0
  const limits = createLimits({ callerPerSecond: 5, refusedPerMinute: 10, now: () => nowMs })
  const passes = (times: number, ask: () => void): number => {
    let passed = 0
    for (let n = 0; n < times; n += 1) {
      try {
        ask()
        passed += 1
      } catch (error) {
        expect(error).toMatchObject({ kind: 'too_many_requests', status: 429, retryAfterSeconds: 1 })
      }
    }
    return passed
  }
  return { limits, passes, pass: (milliseconds: number) => void (nowMs += milliseconds) }
}

const caller = (subject: string, reach: Reach | null = null, issuer = 'https://a.example') =>
  callerWith({ actor: { issuer, subject }, grants: new Map(reach === null ? [] : [['session.delete', reach]]) })

describe('a caller', () => {
  it('has so many requests a second, and gets them back steadily', () => {
    const { limits, passes, pass } = createLimited()
    const ask = () => limits.admit(caller('u'))
    expect(passes(20, ask)).toBe(5)
    pass(400)
    expect(passes(20, ask)).toBe(2)
    pass(60_000)
    expect(passes(20, ask)).toBe(5)
  })

  it('is one subject of one issuer', () => {
    const { limits, passes } = createLimited()
    expect(passes(20, () => limits.admit(caller('u')))).toBe(5)
    expect(passes(20, () => limits.admit(caller('v')))).toBe(5)
    expect(passes(20, () => limits.admit(caller('u', null, 'https://b.example')))).toBe(5)
    // The two parts cannot be shifted into one another.
    expect(passes(20, () => limits.admit(caller('b c', null, 'a')))).toBe(5)
    expect(passes(20, () => limits.admit(caller('c', null, 'a b')))).toBe(5)
  })

  it('with session.delete for organizations is limited, for the instance never', () => {
    const { limits, passes } = createLimited()
    expect(passes(20, () => limits.admit(caller('u', new Set(['o1']))))).toBe(5)
    expect(passes(10_000, () => limits.admit(caller('u', 'instance')))).toBe(10_000)
  })

  it('gains nothing from a clock that jumps back', () => {
    const { limits, passes, pass } = createLimited()
    expect(passes(20, () => limits.admit(caller('u')))).toBe(5)
    pass(-3_600_000)
    expect(passes(20, () => limits.admit(caller('u')))).toBe(0)
    pass(1_000)
    expect(passes(20, () => limits.admit(caller('u')))).toBe(5)
  })
})

describe('an address', () => {
  it('has so many refused tokens a minute', () => {
    const { limits, passes, pass } = createLimited()
    const ask = () => limits.refused('192.0.2.1')
    expect(passes(50, ask)).toBe(10)
    expect(passes(50, () => limits.refused('192.0.2.2'))).toBe(10)
    pass(60_000)
    expect(passes(50, ask)).toBe(10)
  })

  it('is a whole /64 of IPv6, and the same IPv4 in either notation', () => {
    const { limits, passes } = createLimited()
    let n = 0
    expect(passes(50, () => limits.refused(`2001:db8:1:2::${(n += 1).toString(16)}`))).toBe(10)
    expect(passes(50, () => limits.refused('2001:0DB8:0001:0002:ffff:1:2:3'))).toBe(0)
    expect(passes(50, () => limits.refused('2001:db8:1:3::1'))).toBe(10)
    expect(passes(5, () => limits.refused('::1'))).toBe(5)
    expect(passes(50, () => limits.refused('192.0.2.9'))).toBe(10)
    expect(passes(50, () => limits.refused('::ffff:192.0.2.9'))).toBe(0)
    expect(passes(50, () => limits.refused('fe80::1%eth0'))).toBe(10)
    expect(passes(50, () => limits.refused('fe80::2%eth1'))).toBe(0)
  })
})
