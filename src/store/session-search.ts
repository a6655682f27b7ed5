/**
 * Searching live sessions: filters ANDed, values of one filter ORed, one page and the whole count in one statement,
 * so that both tell of the same moment. The count, like the page, holds only what the reader may see.
 *
 * The text of the statement depends only on which kinds of filter are there (at most 384 texts), so that each is
 * planned once and its plan can use the index of its filter.
 */
import { noRuleKills } from './cutoff-match.ts'
import type { Database } from './postgres.ts'
import { sessionColumns, viewOf } from './session-read.ts'
import type { Reader, SessionRow, SessionView } from './session-read.ts'
import { wireTime } from './wire-time.ts'

/** From `from` up to but not including `before`; RFC 3339, or `-infinity` and `infinity`. */
export interface InstantRange {
  readonly from: string
  readonly before: string
}

/** Null: not asked for. An empty list matches nothing. */
export interface SessionFilter {
  readonly ids: readonly string[] | null
  readonly userIds: readonly string[] | null
  /** Subjects of the reader's own issuer that registered the session. */
  readonly creators: readonly string[] | null
  readonly fingerprintIds: readonly string[] | null
  readonly created: InstantRange | null
  readonly expires: InstantRange | null
}

/** A page, in order of creation; sessions of the same moment in order of their ids. */
export interface SearchPage {
  readonly offset: number
  readonly limit: number
  readonly ascending: boolean
}

export interface SearchResult {
  readonly sessions: readonly SessionView[]
  /** All that match and may be seen, not only this page. */
  readonly totalResult: string
  /** The highest sequence among them: what the counts of one's own sessions have reached, and nobody else's. */
  readonly processedSequence: string
  readonly timestamp: string
}

/** The statement's conditions and their parameters, in step. */
const conditionsOf = (reader: Reader, filter: SessionFilter): { conditions: string[]; parameters: unknown[] } => {
  const parameters: unknown[] = []
  const next = (value: unknown): string => `$${parameters.push(value)}`
  const conditions = [`s.state = 'active'`, noRuleKills('s'), `s.issuer = ANY(${next(reader.issuers)}::text[])`]

  if (reader.reach !== 'instance') {
    const own = `s.issuer = ${next(reader.actor.issuer)} AND s.user_id = ${next(reader.actor.subject)}`
    conditions.push(reader.reach === null ? own : `(${own} OR s.resource_owner = ANY(${next([...reader.reach])}::text[]))`)
  }
  if (filter.ids !== null) conditions.push(`s.id = ANY(${next(filter.ids)}::text[])`)
  if (filter.userIds !== null) conditions.push(`s.user_id = ANY(${next(filter.userIds)}::text[])`)
  if (filter.creators !== null) {
    conditions.push(`s.creator_issuer = ${next(reader.actor.issuer)} AND s.creator_subject = ANY(${next(filter.creators)}::text[])`)
  }
  if (filter.fingerprintIds !== null) conditions.push(`s.fingerprint_id = ANY(${next(filter.fingerprintIds)}::text[])`)
  for (const [column, range] of [['s.created_at', filter.created], ['s.expires_at', filter.expires]] as const) {
    if (range === null) continue
    conditions.push(`${column} >= ${next(range.from)}::timestamptz AND ${column} < ${next(range.before)}::timestamptz`)
  }
  return { conditions, parameters }
}

type SearchRow = { total: string; reached: string; read_at: string } & (SessionRow | { id: null })

/** Makes the search. Reads what is committed now: a session that was answered as terminated, or is under a rule, is never in it. */
export const createSearchSessions =
  (db: Database) =>
  async (reader: Reader, filter: SessionFilter, page: SearchPage): Promise<SearchResult> => {
    const { conditions, parameters } = conditionsOf(reader, filter)
    const matching = `FROM sessions s WHERE ${conditions.join(' AND ')}`
    const direction = page.ascending ? 'ASC' : 'DESC'
    const limit = `$${parameters.push(page.limit)}::bigint`
    const offset = `$${parameters.push(page.offset)}::bigint`
    // Times are written out only for the page: the inmost query skips bare rows.
    const rows = await db.$queryRawUnsafe<SearchRow[]>(
      `SELECT whole.*, part.* FROM (
        SELECT count(*)::text AS total, coalesce(max(s.sequence), 0)::text AS reached, ${wireTime('now()')} AS read_at ${matching}
      ) whole LEFT JOIN (
        SELECT ${sessionColumns}, s.created_at AS place FROM (
          SELECT s.* ${matching} ORDER BY s.created_at ${direction}, s.id ${direction} LIMIT ${limit} OFFSET ${offset}
        ) s
      ) part ON true
      ORDER BY part.place ${direction}, part.id ${direction}`,
      ...parameters,
    )
    const [first] = rows
    if (first === undefined) throw new Error('The search returned no row')
    return {
      sessions: rows.flatMap((row) => (row.id === null ? [] : [viewOf(row)])),
      totalResult: first.total,
      processedSequence: first.reached,
      timestamp: first.read_at,
    }
  }
