/**
 * Which cutoff rules contain a revocation: a filter that names nothing but organizations, users, `all` and `bornBefore`
 * can be said in rules, and then it is in force with the transaction that accepts it.
 *
 * A rule names one issuer, one organization or all, one user or all; so lists become their product. Everybody who checks
 * a session walks what applies to it and holds all of it in memory: beyond a bound, sessions die as they are ended.
 */
import type { RevocationExclusions, RevocationFilter, RevocationScope } from '../model.ts'
import { MAX_EXCLUDED } from './cutoff-rules.ts'
import type { RuleTarget } from './cutoff-rules.ts'

/** Some hundred kilobytes in each guard; one statement sets them in a few milliseconds. */
export const MAX_RULES = 1_000
/** Names of excluded users and sessions in all of its rules together: some megabytes in each guard. */
const MAX_EXCLUDED_IN_ALL = 50_000

const isSaidInRules = (filter: RevocationFilter): boolean =>
  filter.bornAfter === null && [filter.sessionIds, filter.clientIds, filter.fingerprintIds, filter.ips].every((kind) => kind.length === 0)

/** The organizations that are meant, or null for whichever there are. */
const organizationsOf = ({ reach, filter }: Pick<RevocationScope, 'reach' | 'filter'>): readonly string[] | null => {
  if (reach === 'instance') return filter.resourceOwners.length === 0 ? null : filter.resourceOwners
  return [...reach].filter((one) => filter.resourceOwners.length === 0 || filter.resourceOwners.includes(one))
}

const usersOf = (filter: RevocationFilter, exclude: RevocationExclusions): readonly string[] | null => {
  if (filter.userIds.length === 0) return null
  const spared = new Set(exclude.userIds)
  return filter.userIds.filter((user) => !spared.has(user))
}

/** Whom the rules kill that say what this scope says, or null: rules cannot say it, or not within the bounds. */
export const rulesOf = (scope: Omit<RevocationScope, 'cutoff'>): readonly RuleTarget[] | null => {
  const { issuers, filter, exclude } = scope
  if (!isSaidInRules(filter)) return null
  if (exclude.userIds.length > MAX_EXCLUDED || exclude.sessionIds.length > MAX_EXCLUDED) return null
  const organizations = organizationsOf(scope) ?? [null]
  const users = usersOf(filter, exclude) ?? [null]
  const count = issuers.length * organizations.length * users.length
  // None would contain nothing: there is nothing to be contained.
  if (count === 0 || count > MAX_RULES) return null
  if (count * (exclude.userIds.length + exclude.sessionIds.length) > MAX_EXCLUDED_IN_ALL) return null
  return issuers.flatMap((issuer) => organizations.flatMap((organization) => users.map((user) => ({ issuer, organization, user }))))
}
