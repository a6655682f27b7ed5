/**
 * Which sessions a revocation means, as SQL over sessions. The state is left to whoever asks: ended sessions match too.
 *
 * What was born later than the cutoff never matches. The cutoff is the earlier of now and `bornBefore`, rounded up to a
 * second, so that a rule and the rows it stands for are judged alike.
 */
import type { RevocationScope } from '../model.ts'
import type { Database } from './postgres.ts'
import { chooseWalk, entriesOf, organizationsOf } from './revocation-walk.ts'
import type { WalkKind } from './revocation-walk.ts'
import { createStatement } from './statement.ts'
import type { Next } from './statement.ts'

/** Beyond so many values a list is hashed for each statement instead of compared one after the other for each row. */
const COMPARED_AT_MOST = 30

const within = (column: string, values: readonly string[], next: Next): string => {
  const list = `${next(values)}::text[]`
  // IS TRUE keeps Postgres from making a join of it, which a generic plan orders badly.
  return values.length > COMPARED_AT_MOST ? `(${column} IN (SELECT unnest(${list}))) IS TRUE` : `${column} = ANY(${list})`
}

/**
 * A condition over the sessions `s` that holds for those that a scope means; never NULL where it stands alone.
 *
 * @param sure the kind of filter that holds already, because its index is walked.
 */
export const matchingSessions = (scope: RevocationScope, next: Next, sure: WalkKind | null = null): string => {
  const { issuers, filter, exclude, cutoff } = scope
  const organizations = organizationsOf(scope)
  const conditions = [`s.issuer = ANY(${next(issuers)}::text[])`, `s.born <= ${next(cutoff)}::text::timestamptz`]
  const ask = (kind: WalkKind, values: readonly string[], condition: () => string) => {
    if (values.length > 0 && kind !== sure) conditions.push(condition())
  }
  if (organizations !== null && sure !== 'organizations') conditions.push(within('s.resource_owner', organizations, next))
  ask('users', filter.userIds, () => within('s.user_id', filter.userIds, next))
  ask('ids', filter.sessionIds, () => within('s.id', filter.sessionIds, next))
  ask('fingerprints', filter.fingerprintIds, () => `(${within('s.fingerprint_id', filter.fingerprintIds, next)}) IS TRUE`)
  ask('ips', filter.ips, () => `(s.ip <<= ANY(${next(filter.ips)}::text[]::inet[])) IS TRUE`)
  ask('clients', filter.clientIds, () =>
    `EXISTS (SELECT FROM session_clients m WHERE m.session_id = s.id AND ${within('m.client_id', filter.clientIds, next)})`)
  if (filter.bornAfter !== null) conditions.push(`s.born > ${next(filter.bornAfter)}::text::timestamptz`)
  if (!filter.includeExpired) conditions.push('s.expires_at > now()')
  if (exclude.userIds.length > 0) conditions.push(`NOT (${within('s.user_id', exclude.userIds, next)})`)
  if (exclude.sessionIds.length > 0) conditions.push(`NOT (${within('s.id', exclude.sessionIds, next)})`)
  return conditions.join(' AND ')
}

export interface Matching {
  readonly count: number
  /** False: at least so many. */
  readonly exact: boolean
}

/** Entries of an index that are looked at for each session that may be counted. */
const ENTRIES_FOR_EACH = 10

/** Counts the live sessions that a scope means, up to `most`, in one statement along the index that leads to the fewest. */
export const countMatching = async (db: Pick<Database, '$queryRawUnsafe'>, scope: RevocationScope, most: number): Promise<Matching> => {
  const walk = await chooseWalk(db, scope)
  if (walk === null) return { count: 0, exact: true }
  const look = async (live: boolean, limit: number): Promise<number> => {
    const { values, next } = createStatement()
    const entries = entriesOf(walk, next, { match: live ? matchingSessions(scope, next, walk.kind) : null, most: `${next(most * ENTRIES_FOR_EACH)}::int` })
    const [row] = await db.$queryRawUnsafe<{ count: number }[]>(
      `SELECT count(*)::int AS count FROM (SELECT FROM (${entries}) e WHERE e.live LIMIT ${next(limit)}::int) m`,
      ...values,
    )
    return row?.count ?? 0
  }
  const count = await look(true, most)
  if (count === most) return { count, exact: false }
  return { count, exact: walk.all || (await look(false, most * ENTRIES_FOR_EACH)) < most * ENTRIES_FOR_EACH }
}
