/**
 * Cutoff rules: "of this issuer, this organization or this user, whatever was born up to T is dead". A rule is one row,
 * never changes, and is in force from its commit on, because every check asks the rules (`cutoff-match.ts`).
 *
 * Rules commit one after the other (a lock, held to the end of the transaction), so that `version` counts up in the
 * order of commits and whoever has read up to one has missed none below it.
 */
import type { RuleOnTheWire } from '../client/wire.ts'
import type { Actor } from '../model.ts'
import { sessionBorn } from './cutoff-match.ts'
import type { Database } from './postgres.ts'
import { wireTime } from './wire-time.ts'

/** The connection, or a transaction of it. */
export type RuleTransaction = Pick<Database, '$queryRawUnsafe'>

/** A rule to be set. */
export interface NewRule {
  /** A UUID. */
  readonly id: string
  readonly issuer: string
  /** Null: every organization, every user. */
  readonly organization: string | null
  readonly user: string | null
  /** RFC 3339; null, or later than now: now. */
  readonly bornBefore: string | null
  readonly excludeUsers: readonly string[]
  readonly excludeSessions: readonly string[]
  readonly reason: string
  readonly actor: Actor
  readonly revocationId: string | null
}

/** Rules to be set together: the same but for whom they kill. */
export interface NewRules extends Omit<NewRule, 'id' | 'issuer' | 'organization' | 'user'> {
  readonly rules: readonly Pick<NewRule, 'id' | 'issuer' | 'organization' | 'user'>[]
}

/** A rule as it was set. Times are RFC 3339 UTC with three fractional digits. */
export interface CutoffRule extends Omit<NewRule, 'bornBefore'> {
  readonly cutoff: string
  readonly created: string
  readonly expires: string
  /** For paging: counts up in the order in which rules were set. */
  readonly version: string
}

const COLUMNS = `r.id::text AS id, r.issuer, r.resource_owner AS organization, r.user_id AS "user",
  r.exclude_users AS "excludeUsers", r.exclude_sessions AS "excludeSessions", r.reason,
  jsonb_build_object('issuer', r.actor_issuer, 'subject', r.actor_subject) AS actor, r.revocation_id::text AS "revocationId",
  ${wireTime('r.cutoff')} AS cutoff, ${wireTime('r.created_at')} AS created, ${wireTime('r.expires_at')} AS expires,
  r.version::text AS version`

// The clock is read under the lock. Rounded up, because tokens carry seconds: one of the same second may be older. Until
// it is set, a session may be prolonged, whenever it was born: so it is from now on that its end is reckoned.
const SET = `
WITH turn AS MATERIALIZED (
  SELECT pg_advisory_xact_lock(hashtext('curfew'), hashtext('cutoff rule versions')) AS held
), clock AS MATERIALIZED (
  SELECT clock_timestamp() AS at FROM turn
), r AS (
  INSERT INTO cutoff_rules (id, issuer, resource_owner, user_id, cutoff, exclude_users, exclude_sessions, reason, actor_issuer,
    actor_subject, revocation_id, created_at, expires_at, version)
  SELECT n.id::uuid, n.issuer, n.organization, n."user", to_timestamp(ceil(extract(epoch FROM least($5::text::timestamptz, c.at)))),
    $6::text[], $7::text[], $8, $9, $10,
    $11::text::uuid, date_trunc('milliseconds', c.at), to_timestamp(ceil(extract(epoch FROM c.at))) + make_interval(secs => $12::float8),
    nextval('cutoff_rules_version_seq')
  FROM clock c, unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS n(id, issuer, organization, "user")
  RETURNING *
)
SELECT ${COLUMNS} FROM r ORDER BY r.version`

/**
 * Sets rules. Part of the caller's transaction, and best its last statement: others who set rules wait for its end.
 *
 * @param lifetimeSeconds for how long, from now, a session or a token that exists now can live.
 */
export const insertRules = async (
  db: RuleTransaction,
  { rules, bornBefore, excludeUsers, excludeSessions, reason, actor, revocationId }: NewRules,
  { lifetimeSeconds }: { lifetimeSeconds: number },
): Promise<CutoffRule[]> => {
  const set = await db.$queryRawUnsafe<CutoffRule[]>(
    SET, rules.map(({ id }) => id), rules.map(({ issuer }) => issuer), rules.map(({ organization }) => organization),
    rules.map(({ user }) => user), bornBefore, excludeUsers, excludeSessions, reason, actor.issuer, actor.subject, revocationId, lifetimeSeconds,
  )
  if (set.length !== rules.length) throw new Error(`Of ${rules.length} rules ${set.length} were set`)
  return set
}

/** Sets one rule, as above. */
export const insertRule = async (db: RuleTransaction, rule: NewRule, lives: { lifetimeSeconds: number }): Promise<CutoffRule> => {
  const [set] = await insertRules(db, { ...rule, rules: [rule] }, lives)
  if (set === undefined) throw new Error('The rule was not set')
  return set
}

/** Up to `limit` rules in force, newest first: those set before the version `before`, or the newest. */
export const listRules = (
  db: RuleTransaction,
  { issuer, before, limit }: { issuer: string | null; before: string | null; limit: number },
): Promise<CutoffRule[]> =>
  db.$queryRawUnsafe<CutoffRule[]>(
    `SELECT ${COLUMNS} FROM cutoff_rules r
     WHERE r.expires_at > clock_timestamp() AND ($1::text IS NULL OR r.issuer = $1) AND ($2::text IS NULL OR r.version < $2::text::bigint)
     ORDER BY r.version DESC LIMIT $3`,
    issuer, before, limit,
  )

/** Other sids of excluded sessions that are told with a rule; a session has a few. */
const MAX_EXCLUDED_SIDS = 10_000

/** A rule as guards know it, with its version: an excluded session is spared by whatever sid a participant knows it. */
export type VersionedRule = RuleOnTheWire & { readonly version: bigint }

/** Up to `limit` rules in force that were committed after the version `after`, in that order; fewer means there are no more. */
export const readRulesAfter = (db: RuleTransaction, { after, limit }: { after: bigint; limit: number }): Promise<VersionedRule[]> =>
  db.$queryRawUnsafe<VersionedRule[]>(
    `SELECT r.id::text AS id, r.issuer, r.resource_owner AS organization, r.user_id AS "user",
       (extract(epoch FROM r.cutoff) * 1000)::float8 AS "cutoffMs", r.exclude_users AS "excludeUsers",
       r.exclude_sessions || ARRAY(
         SELECT c.sid FROM session_clients c JOIN sessions s ON s.id = c.session_id
         WHERE c.session_id = ANY (r.exclude_sessions) AND c.sid <> c.session_id AND s.issuer = r.issuer LIMIT ${MAX_EXCLUDED_SIDS}
       ) AS "excludeSessions", (extract(epoch FROM r.expires_at) * 1000)::float8 AS "expiresMs", r.version
     FROM cutoff_rules r WHERE r.version > $1 AND r.expires_at > clock_timestamp() ORDER BY r.version LIMIT $2`,
    after, limit,
  )

/** How many live sessions rules kill at present, of those that this rule matches; counts up to `most`. */
export const countKilled = async (db: RuleTransaction, { rule, most }: { rule: CutoffRule; most: number }): Promise<number> => {
  const { born, excluded } = sessionBorn('s')
  const [row] = await db.$queryRawUnsafe<{ killed: number }[]>(
    `SELECT count(*)::int AS killed FROM (
       SELECT FROM sessions s JOIN cutoff_rules r ON r.id = $1::text::uuid AND r.issuer = s.issuer
       WHERE s.state = 'active' AND s.issuer = $2 AND ($3::text IS NULL OR s.resource_owner = $3) AND ($4::text IS NULL OR s.user_id = $4)
         AND r.cutoff >= ${born} AND s.user_id <> ALL (r.exclude_users) AND (${excluded}) IS NOT TRUE
       LIMIT $5) k`,
    rule.id, rule.issuer, rule.organization, rule.user, most,
  )
  return row?.killed ?? 0
}

/**
 * Forgets up to `limit` rules whose retention is over. They stay for long after they expire, because an old session
 * may be registered late. Returns how many.
 */
export const pruneRules = (
  db: Pick<Database, '$executeRawUnsafe'>,
  { retentionSeconds, limit }: { retentionSeconds: number; limit: number },
): Promise<number> =>
  db.$executeRawUnsafe(
    `DELETE FROM cutoff_rules WHERE id IN (
       SELECT id FROM cutoff_rules
       WHERE expires_at < clock_timestamp() AND created_at < clock_timestamp() - make_interval(secs => $1::float8)
       ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)`,
    retentionSeconds, limit,
  )

/**
 * Has the plans of waiting statements made anew where rules have come by the hundred: plans made while there were few
 * read all rules for each session of a search, and Postgres looks only once a minute by itself. A role that may not
 * does nothing. Returns whether it did.
 */
export const refreshRulePlans = async (db: RuleTransaction & Pick<Database, '$executeRawUnsafe'>): Promise<boolean> => {
  const [row] = await db.$queryRawUnsafe<{ due: boolean }[]>(
    `SELECT t.n_mod_since_analyze > 50 + 0.2 * greatest(c.reltuples, 0) AS due
     FROM pg_stat_user_tables t JOIN pg_class c ON c.oid = t.relid WHERE t.relid = 'cutoff_rules'::regclass`,
  )
  if (row?.due === true) await db.$executeRawUnsafe('ANALYZE cutoff_rules')
  return row?.due === true
}
