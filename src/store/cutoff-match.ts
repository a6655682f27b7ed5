/**
 * What a cutoff rule kills, as SQL: the same as `client/kills.ts` says, for sessions in the database. A test holds
 * the two together.
 *
 * A rule names an organization or not, and a user or not; each of the four combinations is looked up as a key of its
 * own, so that many rules for users cost a read of one session no more than a few. Rules that have expired match
 * too: nothing alive can be theirs. Relies on cutoff_rules_issuer_resource_owner_user_id_idx.
 */

/** What a registrar is told of a session that a rule kills. */
export const CUTOFF_SAYS = 'Session was born under a cutoff rule'

/** What is asked about: SQL expressions. An organization that is NULL is matched by no rule that names one. */
export interface BornColumns {
  readonly issuer: string
  readonly resourceOwner: string
  readonly userId: string
  readonly born: string
  /** A condition on the rule `r` that is true where it excludes this session. */
  readonly excluded: string
}

const keysOf = ({ issuer, resourceOwner, userId }: BornColumns): string[] => {
  const organization = { named: `r.resource_owner = ${resourceOwner}`, any: 'r.resource_owner IS NULL' }
  const user = { named: `r.user_id = ${userId}`, any: 'r.user_id IS NULL' }
  return [
    [organization.any, user.any],
    [organization.named, user.any],
    [organization.any, user.named],
    [organization.named, user.named],
  ].map((named) => [`r.issuer = ${issuer}`, ...named].join(' AND '))
}

// A session that is not known is NULL in the exclusion: it is then not excluded.
const reaches = ({ born, userId, excluded }: BornColumns): string =>
  `r.cutoff >= ${born} AND ${userId} <> ALL (r.exclude_users) AND (${excluded}) IS NOT TRUE`

/** The id of a rule that kills, or NULL. */
export const ruleThatKills = (born: BornColumns): string =>
  `(SELECT k.id FROM (${keysOf(born).map((key) => `SELECT r.id FROM cutoff_rules r WHERE ${key} AND ${reaches(born)}`).join(' UNION ALL ')}) k LIMIT 1)`

/** Sessions, as a table named so. */
export const sessionBorn = (s: string): BornColumns => ({
  issuer: `${s}.issuer`,
  resourceOwner: `${s}.resource_owner`,
  userId: `${s}.user_id`,
  born: `${s}.born`,
  excluded: `${s}.id = ANY (r.exclude_sessions)`,
})

/** A condition that holds for sessions that no rule kills. Four anti-joins, so that many sessions cost one pass. */
export const noRuleKills = (s: string): string => {
  const born = sessionBorn(s)
  return keysOf(born).map((key) => `NOT EXISTS (SELECT FROM cutoff_rules r WHERE ${key} AND ${reaches(born)})`).join(' AND ')
}
