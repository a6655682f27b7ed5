import { describe, expect, it } from 'vitest'
import type { RevocationExclusions, RevocationFilter, RevocationScope } from '../../src/model.ts'
import { MAX_RULES, rulesOf } from '../../src/termination/containment.ts'

const nothing: RevocationFilter = {
  resourceOwners: [], userIds: [], sessionIds: [], clientIds: [], fingerprintIds: [], ips: [], bornBefore: null, bornAfter: null, includeExpired: false, all: false,
}
const spare: RevocationExclusions = { userIds: [], sessionIds: [] }
const rules = (filter: Partial<RevocationFilter>, change: Partial<Omit<RevocationScope, 'filter' | 'cutoff'>> = {}) =>
  rulesOf({ issuers: ['i'], reach: 'instance', exclude: spare, ...change, filter: { ...nothing, ...filter } })
  ?.map(({ issuer, organization, user }) => `${issuer} ${organization ?? '*'} ${user ?? '*'}`) ?? null
const many = (count: number) => Array.from({ length: count }, (_, n) => `u${n}`)

describe('containment by rules', () => {
  it('is said of organizations, users, all, and by when one was born', () => {
    expect(rules({ all: true })).toEqual(['i * *'])
    expect(rules({ bornBefore: '2026-01-01T00:00:00.000Z' })).toEqual(['i * *'])
    expect(rules({ resourceOwners: ['o1', 'o2'] }, { issuers: ['i', 'j'] })).toEqual(['i o1 *', 'i o2 *', 'j o1 *', 'j o2 *'])
    expect(rules({ resourceOwners: ['o1'], userIds: ['a', 'b'], includeExpired: true })).toEqual(['i o1 a', 'i o1 b'])
  })

  it('is not said of anything else', () => {
    for (const filter of [{ sessionIds: ['s'] }, { clientIds: ['c'] }, { fingerprintIds: ['f'] }, { ips: ['10.0.0.0/8'] }, { bornAfter: '2026-01-01T00:00:00.000Z' }]) {
      expect(rules({ userIds: ['a'], ...filter })).toBeNull()
    }
  })

  it('G6: never leaves the organizations of who asks', () => {
    const reach = new Set(['o1', 'o2'])
    expect(rules({ all: true }, { reach })).toEqual(['i o1 *', 'i o2 *'])
    expect(rules({ userIds: ['a'] }, { reach })).toEqual(['i o1 a', 'i o2 a'])
    expect(rules({ resourceOwners: ['o2', 'o3'] }, { reach })).toEqual(['i o2 *'])
    expect(rules({ resourceOwners: ['o3'] }, { reach })).toBeNull()
  })

  it('spares whom it excludes', () => {
    expect(rules({ userIds: ['a', 'b'] }, { exclude: { userIds: ['a'], sessionIds: [] } })).toEqual(['i * b'])
    expect(rules({ userIds: ['a'] }, { exclude: { userIds: ['a'], sessionIds: [] } })).toBeNull()
  })

  it('is left to the rows where it would be too much for guards to hold', () => {
    expect(rules({ userIds: many(MAX_RULES) })).toHaveLength(MAX_RULES)
    expect(rules({ userIds: many(MAX_RULES + 1) })).toBeNull()
    expect(rules({ all: true }, { exclude: { userIds: many(1_001), sessionIds: [] } })).toBeNull()
    expect(rules({ userIds: many(500) }, { exclude: { userIds: [], sessionIds: many(500) } })).toBeNull()
  })
})
