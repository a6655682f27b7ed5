/**
 * Cutoff rules in memory, found by what they name, so that thousands of them cost a check three look-ups. Rules are
 * only ever added and, when nothing that they kill could still live, forgotten; asking allocates nothing.
 */
import { kills } from './kills.ts'
import type { Born } from './kills.ts'
import type { RuleOnTheWire } from './wire.ts'

interface OfIssuer {
  readonly byUser: Map<string, RuleOnTheWire[]>
  readonly byOrganization: Map<string, RuleOnTheWire[]>
  /** Those that name neither. */
  readonly wide: RuleOnTheWire[]
}

export interface Rules {
  /** Again changes nothing. */
  add(rule: RuleOnTheWire): void
  /** A rule that kills it, or null. */
  find(born: Born): RuleOnTheWire | null
  /** Forgets what has expired. */
  sweep(nowMs: number): void
  readonly size: number
}

const firstThatKills = (rules: readonly RuleOnTheWire[] | undefined, born: Born): RuleOnTheWire | null => {
  if (rules === undefined) return null
  for (const rule of rules) if (kills(rule, born)) return rule
  return null
}

const push = (map: Map<string, RuleOnTheWire[]>, key: string, rule: RuleOnTheWire): void => {
  const list = map.get(key)
  if (list === undefined) map.set(key, [rule])
  else list.push(rule)
}

export const createRules = (): Rules => {
  const byId = new Map<string, RuleOnTheWire>()
  const byIssuer = new Map<string, OfIssuer>()

  const index = (rule: RuleOnTheWire): void => {
    let of = byIssuer.get(rule.issuer)
    if (of === undefined) {
      of = { byUser: new Map(), byOrganization: new Map(), wide: [] }
      byIssuer.set(rule.issuer, of)
    }
    if (rule.user !== null) push(of.byUser, rule.user, rule)
    else if (rule.organization !== null) push(of.byOrganization, rule.organization, rule)
    else of.wide.push(rule)
  }

  return {
    add: (rule) => {
      if (byId.has(rule.id)) return
      byId.set(rule.id, rule)
      index(rule)
    },
    find: (born) => {
      const of = byIssuer.get(born.issuer)
      if (of === undefined) return null
      return (
        firstThatKills(of.wide, born) ??
        (born.organization === null ? null : firstThatKills(of.byOrganization.get(born.organization), born)) ??
        (born.user === null ? null : firstThatKills(of.byUser.get(born.user), born))
      )
    },
    sweep: (nowMs) => {
      const expired = [...byId.values()].filter(({ expiresMs }) => expiresMs <= nowMs)
      if (expired.length === 0) return
      for (const { id } of expired) byId.delete(id)
      byIssuer.clear()
      for (const rule of byId.values()) index(rule)
    },
    get size() {
      return byId.size
    },
  }
}
