/**
 * What a cutoff rule kills: the one place that says so, for the server and for guards alike.
 *
 * Any rule that kills decides, so an older rule never shields from a newer one.
 */
import type { RuleOnTheWire } from './wire.ts'

/** A session or a token, as far as rules ask. Null where it is not known: a rule that names it then does not match. */
export interface Born {
  readonly issuer: string
  readonly organization: string | null
  readonly user: string | null
  readonly sessionId: string | null
  /** Milliseconds since 1970; 0 where it is not known, so that it is older than every cutoff. */
  readonly bornMs: number
}

/** True where the rule matches all of what it names, the born is not later than its cutoff, and it excludes neither. */
export const kills = (rule: RuleOnTheWire, born: Born): boolean =>
  rule.issuer === born.issuer &&
  born.bornMs <= rule.cutoffMs &&
  (rule.organization === null || rule.organization === born.organization) &&
  (rule.user === null || rule.user === born.user) &&
  (born.user === null || !rule.excludeUsers.includes(born.user)) &&
  (born.sessionId === null || !rule.excludeSessions.includes(born.sessionId))
