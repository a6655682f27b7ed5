/**
 * ZITADEL's search queries on the wire, and how they become the store's filter: queries are ANDed, so two of one kind
 * leave what both allow. `null` is "not set", unknown fields are ignored, enums come as names or numbers (protojson).
 */
import { z } from 'zod'
import { CurfewError } from '../../../errors.ts'
import type { SessionFilter } from '../../../store/session-search.ts'
import { rangeOf, timestampMethods, within } from './instant-range.ts'
import { rfc3339 } from './session-fields.ts'

const method = z
  .union([z.enum(timestampMethods), z.number().int().min(0).max(timestampMethods.length - 1)], `must be one of ${timestampMethods.join(', ')}`)
  .nullish()
  .describe('Defaults to TIMESTAMP_QUERY_METHOD_EQUALS')

/** Control characters match nothing that is stored, and NUL cannot even be asked for. */
const text = z.string().regex(/^[^\p{Cc}\p{Cs}]{0,255}$/u, 'must have at most 255 characters and no control characters')

/** As many as a page can hold. */
const MAX_IDS = 1_000

/** More than one of each kind is rarely of use, more than twenty never. */
export const MAX_QUERIES = 20

export const searchQuery = z.object({
  idsQuery: z.object({ ids: z.array(text).max(MAX_IDS).nullish() }).nullish(),
  userIdQuery: z.object({ id: text.nullish() }).nullish(),
  creationDateQuery: z.object({ creationDate: rfc3339, method }).nullish(),
  creatorQuery: z.object({ id: text.nullish().describe('Absent: the caller') }).nullish(),
  userAgentQuery: z.object({ fingerprintId: text.nullish().describe('Absent: the agent of the caller’s own session') }).nullish(),
  expirationDateQuery: z.object({ expirationDate: rfc3339, method }).nullish(),
})

export type SearchQuery = z.output<typeof searchQuery>

export interface FilterDeps {
  /** The subject of the caller. */
  readonly creator: string
  /** The fingerprint of the caller's own user agent, or null where it is not known. */
  readonly readOwnFingerprint: () => Promise<string | null>
}

const everything: SessionFilter = { ids: null, userIds: null, creators: null, fingerprintIds: null, created: null, expires: null }

const both = (one: readonly string[] | null, other: readonly string[]): readonly string[] =>
  one === null ? [...new Set(other)] : one.filter((value) => other.includes(value))

const methodOf = (sent: z.output<typeof method>) => {
  const found = typeof sent === 'string' ? sent : timestampMethods[sent ?? 0]
  if (found === undefined) throw new CurfewError('invalid_argument', { says: 'method is unknown' })
  return found
}

const fingerprintOf = async (sent: string | null | undefined, { readOwnFingerprint }: FilterDeps): Promise<string> => {
  const fingerprint = sent ?? (await readOwnFingerprint())
  if (fingerprint === null || fingerprint === '') throw new CurfewError('search_user_agent_missing')
  return fingerprint
}

/**
 * The filter that all the queries make together.
 *
 * @throws CurfewError search_query_unknown for a query that is none or several of the known ones;
 * search_creator_missing and search_user_agent_missing where the value to compare with is empty or not known.
 */
export const filterOf = async (queries: readonly SearchQuery[], deps: FilterDeps): Promise<SessionFilter> => {
  let filter = everything
  for (const query of queries) {
    const { idsQuery, userIdQuery, creationDateQuery, creatorQuery, userAgentQuery, expirationDateQuery } = query
    if (Object.values(query).filter((one) => one != null).length !== 1) throw new CurfewError('search_query_unknown')
    if (idsQuery != null) filter = { ...filter, ids: both(filter.ids, idsQuery.ids ?? []) }
    if (userIdQuery != null) filter = { ...filter, userIds: both(filter.userIds, [userIdQuery.id ?? '']) }
    if (creatorQuery != null) {
      const creator = creatorQuery.id ?? deps.creator
      if (creator === '') throw new CurfewError('search_creator_missing')
      filter = { ...filter, creators: both(filter.creators, [creator]) }
    }
    if (userAgentQuery != null) {
      const fingerprint = await fingerprintOf(userAgentQuery.fingerprintId, deps)
      filter = { ...filter, fingerprintIds: both(filter.fingerprintIds, [fingerprint]) }
    }
    if (creationDateQuery != null) {
      const range = rangeOf(creationDateQuery.creationDate, methodOf(creationDateQuery.method))
      filter = { ...filter, created: within(filter.created, range) }
    }
    if (expirationDateQuery != null) {
      const range = rangeOf(expirationDateQuery.expirationDate, methodOf(expirationDateQuery.method))
      filter = { ...filter, expires: within(filter.expires, range) }
    }
  }
  return filter
}
