import fc from 'fast-check'
import { expect, it } from 'vitest'
import { kills } from '../../src/client/kills.ts'
import { createRules } from '../../src/client/rules.ts'
import type { RuleOnTheWire } from '../../src/client/wire.ts'

const name = (...names: string[]) => fc.option(fc.constantFrom(...names))
const rule: fc.Arbitrary<RuleOnTheWire> = fc.record({
  id: fc.uuid(),
  issuer: fc.constantFrom('i1', 'i2'),
  organization: name('o1', 'o2'),
  user: name('u1', 'u2'),
  cutoffMs: fc.integer({ min: 0, max: 5 }),
  excludeUsers: fc.subarray(['u1', 'u2']),
  excludeSessions: fc.subarray(['s1', 's2']),
  expiresMs: fc.integer({ min: 6, max: 9 }),
})
const born = fc.record({
  issuer: fc.constantFrom('i1', 'i2', 'i3'),
  organization: name('o1', 'o2', 'o3'),
  user: name('u1', 'u2', 'u3'),
  sessionId: name('s1', 's2', 's3'),
  bornMs: fc.integer({ min: 0, max: 6 }),
})

it('finds a rule that kills exactly where one does, in any order, told once or twice, until it expires', () => {
  fc.assert(fc.property(fc.array(rule, { maxLength: 12 }), fc.array(born, { minLength: 1, maxLength: 8 }), fc.integer({ min: 5, max: 10 }), (all, asked, nowMs) => {
    const rules = createRules()
    for (const one of [...all, ...all.toReversed()]) rules.add(one)
    rules.sweep(nowMs)
    const inForce = all.filter(({ expiresMs }) => expiresMs > nowMs)
    for (const one of asked) {
      const found = rules.find(one)
      expect(found !== null).toBe(inForce.some((each) => kills(each, one)))
      if (found !== null) expect(kills(found, one)).toBe(true)
    }
  }))
})
