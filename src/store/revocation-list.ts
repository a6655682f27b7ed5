/**
 * Lists of revocations, newest first: ids are UUIDv7, so their order is that of acceptance.
 *
 * A page looks at a bounded number of rows, however few of them the viewer sees: it may be short, or empty, and still
 * have a next one. Where that begins says nothing of what was passed over but a millisecond.
 */
import type { RevocationState, TerminationMode } from '../model.ts'
import { REVOCATION_COLUMNS, REVOCATION_SUMS, VISIBLE, revocationOf, viewerParameters } from './revocations.ts'
import type { ReadColumns, Revocation, RevocationTransaction, Viewer } from './revocations.ts'

/** A revocation without its filter and exclusions, which may be long. */
export type ListedRevocation = Omit<Revocation, 'filter' | 'exclude'>

export interface RevocationsAsked {
  readonly viewer: Viewer
  /** Null, here and below: whichever. */
  readonly states: readonly RevocationState[] | null
  readonly mode: TerminationMode | null
  readonly ticket: string | null
  /** The subject of who asked for it, at whichever issuer. */
  readonly actorSubject: string | null
  /** RFC 3339: accepted at or after the one, and before the other. */
  readonly createdFrom: string | null
  readonly createdBefore: string | null
  /** Where the page before says that this one begins; null: at the newest. */
  readonly before: string | null
  readonly limit: number
}

export interface RevocationPage {
  readonly revocations: readonly ListedRevocation[]
  /** Where the next page begins, or null: there is none. */
  readonly next: string | null
}

/** Rows looked at for one page: some ten milliseconds. */
const LOOKED_AT = 5_000

/** Above every id. */
const NEWEST = 'ffffffff-ffff-ffff-ffff-ffffffffffff'

const WANTED = `${VISIBLE} AND ($6::text[] IS NULL OR r.state::text = ANY($6::text[])) AND ($7::text IS NULL OR r.mode::text = $7)
  AND ($8::text IS NULL OR r.ticket = $8) AND ($9::text IS NULL OR r.actor_subject = $9)
  AND ($10::text IS NULL OR r.created_at >= $10::text::timestamptz) AND ($11::text IS NULL OR r.created_at < $11::text::timestamptz)`

const walk = (among: string): string =>
  `SELECT r.id, ${WANTED} AS wanted FROM revocations r WHERE ${among} AND r.id < $12::text::uuid ORDER BY r.id DESC LIMIT ${LOOKED_AT}`

const lastOf = (walked: string): string => `(SELECT id FROM ${walked} ORDER BY id DESC OFFSET ${LOOKED_AT - 1})`

/** The first id of the millisecond after that of an id. */
const millisecondAfter = (id: string): string =>
  `(lpad(to_hex(('x' || left(replace(${id}::text, '-', ''), 12))::bit(48)::bigint + 1), 12, '0') || repeat('0', 20))::uuid`

// What is one's own by one index, what can be within reach by another. Where a walk was cut off, this page ends: beyond
// that, it may have passed over what the other has seen.
const find = (amongReached: string): string => `
WITH own AS MATERIALIZED (${walk('r.actor_issuer = $1 AND r.actor_subject = $2')}),
reached AS MATERIALIZED (${walk(amongReached)}),
cut AS MATERIALIZED (
  SELECT ${millisecondAfter('last.id')} AS id FROM (SELECT greatest(${lastOf('own')}, ${lastOf('reached')}) AS id) last
)
SELECT ARRAY(
  SELECT id::text FROM (SELECT id FROM own WHERE wanted UNION SELECT id FROM reached WHERE wanted) seen
  WHERE id >= coalesce((SELECT id FROM cut), '00000000-0000-0000-0000-000000000000') ORDER BY id DESC LIMIT $13
) AS ids, (SELECT id::text FROM cut) AS cut`

const FIND = { instance: find('TRUE'), organizations: find('NOT r.instance') } as const

/** Up to `limit` revocations that the viewer sees and that are asked for. Relies on revocations_pkey and the two indexes for lists. */
export const listRevocations = async (db: RevocationTransaction, asked: RevocationsAsked): Promise<RevocationPage> => {
  const { viewer, states, mode, ticket, actorSubject, createdFrom, createdBefore, before, limit } = asked
  const [found] = await db.$queryRawUnsafe<{ ids: string[]; cut: string | null }[]>(
    FIND[viewer.reach === 'instance' ? 'instance' : 'organizations'],
    ...viewerParameters(viewer), states, mode, ticket, actorSubject, createdFrom, createdBefore, before ?? NEWEST, limit + 1,
  )
  const { ids = [], cut = null } = found ?? {}
  const page = ids.slice(0, limit)
  return { revocations: await readRevocations(db, page), next: ids.length > limit ? page.at(-1) ?? null : cut }
}

/** Revocations by their ids, newest first, whoever asks. Those that there are not are left out. */
export const readRevocations = async (db: RevocationTransaction, ids: readonly string[]): Promise<ListedRevocation[]> => {
  if (ids.length === 0) return []
  const rows = await db.$queryRawUnsafe<Omit<ReadColumns, 'filter' | 'exclude'>[]>(
    `SELECT ${REVOCATION_COLUMNS} FROM revocations r ${REVOCATION_SUMS} WHERE r.id = ANY($1::text[]::uuid[]) ORDER BY r.id DESC`, ids,
  )
  return rows.map(revocationOf)
}
