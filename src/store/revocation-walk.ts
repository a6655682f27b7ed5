/**
 * The indexes that a revocation can walk: entry by entry, from a key on, in an order of their own. Each kind of filter
 * has one, so whatever is asked for, no search reads the whole table.
 *
 * A walk has leads (the values of its filter, in a fixed order) and, within each lead, the order of the index. A key is
 * the number of a lead, from 1, and then the index's further columns, as texts: `{3,2026-11-23 04:00:00+00,310000012}`.
 * The empty key is before everything; as an end, behind everything.
 */
import type { RevocationScope } from '../model.ts'
import type { Database } from './postgres.ts'
import { createStatement } from './statement.ts'
import type { Next } from './statement.ts'

/** The best first, where counting does not tell. */
export const walkKinds = ['ids', 'users', 'fingerprints', 'clients', 'ips', 'organizations', 'born', 'issuers'] as const
export type WalkKind = (typeof walkKinds)[number]

export interface Walk {
  readonly kind: WalkKind
  /** The leads in two columns: a value and nothing, an issuer and a user, the ends of a network. */
  readonly leads: readonly [readonly string[], readonly string[]]
  readonly bornAfter: string | null
  readonly bornUpTo: string
  readonly includeExpired: boolean
}

interface Key {
  readonly column: string
  readonly type: string
  /** What lies before and behind every entry of a lead. */
  readonly least: string
  readonly greatest: string
}

interface Shape {
  /** Which entries belong to a lead `l`, besides what their keys say. */
  readonly belongs: string | null
  readonly keys: readonly Key[]
}

/** No id has so many characters. */
const byId: Key = { column: 's.id', type: 'text', least: `''`, greatest: `repeat(U&'\\+10FFFF', 201)` }
const byTime = (column: string): Key => ({ column, type: 'timestamptz', least: `'-infinity'`, greatest: `'infinity'` })

const shapes: Readonly<Record<WalkKind, Shape>> = {
  ids: { belongs: 's.id = l.a', keys: [] },
  users: { belongs: 's.issuer = l.a AND s.user_id = l.b', keys: [byId] },
  fingerprints: { belongs: 's.fingerprint_id = l.a', keys: [byId] },
  clients: { belongs: 'p.client_id = l.a', keys: [{ ...byId, column: 'p.session_id' }, { ...byId, column: 'p.sid' }] },
  ips: { belongs: null, keys: [{ column: 's.ip', type: 'inet', least: 'l.a::inet', greatest: 'l.b::inet' }, byId] },
  organizations: { belongs: 's.resource_owner = l.a', keys: [byTime('s.expires_at'), byId] },
  born: { belongs: 's.issuer = l.a', keys: [byTime('s.born'), byId] },
  issuers: { belongs: 's.issuer = l.a', keys: [byTime('s.expires_at'), byId] },
}

/** SQL for the key, as text[], of an entry that is named so. */
export const keyOf = ({ kind }: Walk, entry: string): string =>
  `ARRAY[${entry}.n::text${shapes[kind].keys.map((_, at) => `, ${entry}.k${at + 1}::text`).join('')}]`

export interface EntriesAsked {
  /** Which sessions `s` are meant (`matchingSessions`); null: whatever is there, without a look at it. */
  readonly match: string | null
  /** SQL for how many entries at most. */
  readonly most: string
  /** SQL for the key after which they are wanted, and for the last that is. */
  readonly after?: string
  readonly until?: string
}

/**
 * A query of entries in their order: `n` and `k1`, `k2` (the key), `live` (a session that is not ended and meant), and of
 * the session `place` (its ctid).
 *
 * Each lead is looked up by itself, in their order, and no more is read than is wanted: with the order and the limit
 * within, also a generic plan can do nothing but go along the index.
 */
export const entriesOf = (walk: Walk, next: Next, { match, most, after = `'{}'::text[]`, until = `'{}'::text[]` }: EntriesAsked): string => {
  const { kind, leads, bornAfter, bornUpTo, includeExpired } = walk
  const { belongs, keys } = shapes[kind]
  const [a, b] = [`${next(leads[0])}::text[]`, `${next(leads[1])}::text[]`]
  const conditions = belongs === null ? [] : [belongs]
  if (keys.length > 0) {
    const columns = keys.map(({ column }) => column).join(', ')
    const ends = (end: 'after' | 'until') =>
      keys.map(({ type, least, greatest }, at) =>
        `CASE WHEN l.n = (k.${end})[1]::int THEN (k.${end})[${at + 2}]::${type} ELSE ${end === 'after' ? least : greatest} END`).join(', ')
    conditions.push(`(${columns}) > (${ends('after')})`, `(${columns}) <= (${ends('until')})`)
  }
  if (kind === 'born') {
    conditions.push(`s.born <= ${next(bornUpTo)}::text::timestamptz`)
    if (bornAfter !== null) conditions.push(`s.born > ${next(bornAfter)}::text::timestamptz`)
  }
  if ((kind === 'organizations' || kind === 'issuers') && !includeExpired) conditions.push('s.expires_at > now()')
  const order = keys.length === 0 ? '' : `ORDER BY ${keys.map(({ column }) => column).join(', ')}`
  const named = keys.map(({ column }, at) => `, ${column} AS k${at + 1}`).join('')
  const where = `WHERE ${conditions.join(' AND ')} ${order} LIMIT ${most}`
  const live = (first = '') => (match === null ? 'true AS live' : `(s.state = 'active' AND ${match}${first}) AS live, s.ctid AS place`)
  // A session may be there for several clients and sids: it is live at the first entry of it that is walked.
  const first = ` AND NOT EXISTS (SELECT FROM session_clients o WHERE o.session_id = s.id
    AND (array_position(${a}, o.client_id) < l.n OR (o.client_id = l.a AND o.sid < p.k2)))`
  const session = match === null ? '' : 'CROSS JOIN LATERAL (SELECT *, ctid FROM sessions WHERE id = p.k1 OFFSET 0) s'
  const found = kind === 'clients'
    ? `SELECT p.*, ${live(first)} FROM (SELECT p.session_id AS k1, p.sid AS k2 FROM session_clients p ${where}) p ${session}`
    : `SELECT ${live()}${named} FROM sessions s ${where}`
  const from = keys.length === 0 ? 'l.n > coalesce((k.after)[1]::int, 0)' : 'l.n >= coalesce((k.after)[1]::int, 1)'
  return `SELECT l.n, e.* FROM (SELECT ${after} AS after, ${until} AS until) k
    CROSS JOIN LATERAL (SELECT * FROM unnest(${a}, ${b}) WITH ORDINALITY AS l(a, b, n)
      WHERE ${from} AND l.n <= coalesce((k.until)[1]::int, 2147483647) ORDER BY l.n) l
    CROSS JOIN LATERAL (${found}) e LIMIT ${most}`
}

/** The organizations that a scope is limited to; null: all of them. */
export const organizationsOf = ({ reach, filter }: RevocationScope): readonly string[] | null => {
  if (filter.resourceOwners.length === 0) return reach === 'instance' ? null : [...reach]
  return reach === 'instance' ? filter.resourceOwners : filter.resourceOwners.filter((organization) => reach.has(organization))
}

/** Networks as their first and last address, in order, without those that lie in another. */
const NETWORKS = `
SELECT network::text AS first, last::text AS last FROM (
  SELECT network, last, max(last) OVER (PARTITION BY family(network) ORDER BY network ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
  FROM (SELECT DISTINCT network(i)::inet AS network, set_masklen(broadcast(i), CASE family(i) WHEN 4 THEN 32 ELSE 128 END) AS last
    FROM unnest($1::text[]::inet[]) i) n) o
WHERE before IS NULL OR before < last ORDER BY network`

const distinct = (values: readonly string[]): string[] => [...new Set(values)].sort()

/** Every walk that leads to all that the scope means, the best first; none where it means nothing. */
const walksOf = async (db: Pick<Database, '$queryRawUnsafe'>, scope: RevocationScope): Promise<Walk[]> => {
  const { issuers, filter, cutoff } = scope
  const organizations = organizationsOf(scope)
  if (issuers.length === 0 || organizations?.length === 0) return []
  const single = (values: readonly string[]) => [distinct(values), distinct(values).map(() => '')] as const
  const pairs = distinct(issuers).flatMap((issuer) => distinct(filter.userIds).map((user) => [issuer, user] as const))
  const networks = filter.ips.length === 0 ? [] : await db.$queryRawUnsafe<{ first: string; last: string }[]>(NETWORKS, filter.ips)
  const leads: Readonly<Record<WalkKind, Walk['leads']>> = {
    ids: single(filter.sessionIds),
    users: [pairs.map(([issuer]) => issuer), pairs.map(([, user]) => user)],
    fingerprints: single(filter.fingerprintIds),
    clients: single(filter.clientIds),
    ips: [networks.map(({ first }) => first), networks.map(({ last }) => last)],
    organizations: single(organizations ?? []),
    born: single(filter.bornAfter === null && filter.bornBefore === null ? [] : issuers),
    issuers: single(issuers),
  }
  const bounds = { bornAfter: filter.bornAfter, bornUpTo: cutoff, includeExpired: filter.includeExpired }
  return walkKinds.flatMap((kind) => (leads[kind][0].length === 0 ? [] : [{ kind, leads: leads[kind], ...bounds }]))
}

/** Entries counted to compare indexes: a few milliseconds; more than that count alike. */
const COUNTED = 20_000
/** Where fewer were found than one statement walks, no other index is worth a look. */
const WORTH_A_LOOK = 200

/** A walk, and whether all its entries were counted, so that it is known to be short. */
export type ChosenWalk = Walk & { readonly all: boolean }

/** The walk with the fewest entries, or null where nothing can be meant. */
export const chooseWalk = async (db: Pick<Database, '$queryRawUnsafe'>, scope: RevocationScope): Promise<ChosenWalk | null> => {
  let best: Walk | null = null
  let fewest = COUNTED
  for (const walk of await walksOf(db, scope)) {
    const entries = await countEntries(db, walk, fewest)
    if (best === null || entries < fewest) best = walk
    fewest = Math.min(fewest, entries)
    if (fewest < WORTH_A_LOOK) break
  }
  return best === null ? null : { ...best, all: fewest < COUNTED }
}

const countEntries = async (db: Pick<Database, '$queryRawUnsafe'>, walk: Walk, most: number): Promise<number> => {
  const { values, next } = createStatement()
  const entries = entriesOf(walk, next, { match: null, most: `${next(most)}::int` })
  const [row] = await db.$queryRawUnsafe<{ entries: number }[]>(`SELECT count(*)::int AS entries FROM (${entries}) e`, ...values)
  return row?.entries ?? 0
}

/** The walk of one kind, as it was chosen before. */
export const walkOf = async (db: Pick<Database, '$queryRawUnsafe'>, scope: RevocationScope, kind: WalkKind): Promise<Walk | null> =>
  (await walksOf(db, scope)).find((walk) => walk.kind === kind) ?? null
