/**
 * Every kind of filter walks an index, at a size where reading the whole table would show, and whatever else of the same
 * kind there is. Asked as Postgres plans by default, with sequential scans allowed, and with generic plans as well.
 */
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { RevocationFilter, RevocationScope } from '../../src/model.ts'
import { openDatabase } from '../../src/store/postgres.ts'
import type { Database } from '../../src/store/postgres.ts'
import { matchingSessions } from '../../src/store/revocation-filter.ts'
import { chooseWalk, entriesOf } from '../../src/store/revocation-walk.ts'
import type { WalkKind } from '../../src/store/revocation-walk.ts'
import { createStatement } from '../../src/store/statement.ts'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'
import { noFilter } from './revocation-candidates.ts'

const SESSIONS = 60_000
const ISSUERS = ['https://a.example', 'https://b.example']

let database: TestDatabase
let db: Database
let plain: pg.Client
beforeAll(async () => {
  database = await createDatabase()
  db = openDatabase({ url: database.url, name: 'plans', max: 2 })
  plain = new pg.Client({ connectionString: database.url })
  await plain.connect()
  await database.sql.query(
    `INSERT INTO sessions (id, issuer, user_id, resource_owner, sequence, registration_hash, creator_issuer, creator_subject, fingerprint_id, ip, born, created_at, change_date, expires_at)
     SELECT 's' || n, ($2::text[])[1 + n % 2], 'u' || n / 3, 'o' || n % 300, 1, 'seed', 'i', 'seeder', 'f' || n / 2, '10.0.0.0'::inet + n, now() - make_interval(secs => n), now(), now(), now() + make_interval(secs => n + 60)
     FROM generate_series(1, $1::int) n`, [SESSIONS, ISSUERS])
  await database.sql.query(`INSERT INTO session_clients SELECT id, 'c' || right(id, 2), id, user_id FROM sessions`)
  await database.sql.query('VACUUM (ANALYZE) sessions, session_clients')
})
afterAll(async () => {
  await plain.end()
  await db.$disconnect()
  await database.drop()
})

const many = Array.from({ length: 10_000 }, (_, n) => n + 1)
const nothingExcluded = { userIds: [], sessionIds: [] }

const cases: readonly { name: string; walks: WalkKind; index: string; filter: Partial<RevocationFilter>; reach?: RevocationScope['reach']; issuers?: readonly string[] }[] = [
  { name: 'sessions', walks: 'ids', index: 'sessions_pkey', filter: { sessionIds: ['s1', 's2'] } },
  { name: 'ten thousand sessions', walks: 'ids', index: 'sessions_pkey', filter: { sessionIds: many.map((n) => `s${n}`) } },
  { name: 'users', walks: 'users', index: 'sessions_issuer_user_id_id_idx', filter: { userIds: ['u1', 'u2'] } },
  { name: 'ten thousand users', walks: 'users', index: 'sessions_issuer_user_id_id_idx', filter: { userIds: many.map((n) => `u${n}`) } },
  { name: 'devices', walks: 'fingerprints', index: 'sessions_fingerprint_id_id_idx', filter: { fingerprintIds: ['f1', 'f2'] } },
  { name: 'clients', walks: 'clients', index: 'session_clients_client_id_session_id_sid_idx', filter: { clientIds: ['c11', 'c12'] } },
  { name: 'an address', walks: 'ips', index: 'sessions_ip_id_idx', filter: { ips: ['10.0.0.7'] } },
  { name: 'networks', walks: 'ips', index: 'sessions_ip_id_idx', filter: { ips: ['10.0.1.0/24', '192.168.0.0/16', '2001:db8::/32'] } },
  { name: 'organizations', walks: 'organizations', index: 'sessions_resource_owner_expires_at_id_idx', filter: { resourceOwners: ['o1', 'o2'] } },
  { name: 'all within a caller’s organizations', walks: 'organizations', index: 'sessions_resource_owner_expires_at_id_idx', filter: { all: true }, reach: new Set(['o1']) },
  { name: 'a stretch of time', walks: 'born', index: 'sessions_issuer_born_id_idx', filter: { bornAfter: new Date(Date.now() - 500_000).toISOString() } },
  { name: 'all of an issuer', walks: 'issuers', index: 'sessions_issuer_expires_at_id_idx', filter: { all: true }, issuers: ['https://nobody.example'] },
  { name: 'the smaller of two: an organization and a large network', walks: 'organizations', index: 'sessions_resource_owner_expires_at_id_idx', filter: { resourceOwners: ['o1'], ips: ['10.0.0.0/8'] } },
  { name: 'the smaller of two: a user and an organization', walks: 'users', index: 'sessions_issuer_user_id_id_idx', filter: { userIds: ['u1'], resourceOwners: ['o1'] } },
  { name: 'the smaller of two: a device and ten thousand users', walks: 'fingerprints', index: 'sessions_fingerprint_id_id_idx', filter: { userIds: many.map((n) => `u${n}`), fingerprintIds: ['f9'] } },
]

interface Node {
  readonly 'Node Type': string
  readonly 'Relation Name'?: string
  readonly 'Index Name'?: string
  readonly 'Actual Rows'?: number
  readonly 'Actual Loops'?: number
  readonly Plans?: readonly Node[]
}
const nodesOf = (node: Node): Node[] => [node, ...(node.Plans ?? []).flatMap(nodesOf)]

const literalOf = (value: unknown): string =>
  pg.escapeLiteral(Array.isArray(value) ? `{${value.map((item) => JSON.stringify(item)).join(',')}}` : String(value))

describe.each(['auto', 'force_generic_plan'])('with plan_cache_mode %s', (mode) => {
  it.each(cases)('a filter of $name walks $walks', async ({ walks, index, filter, reach = 'instance', issuers = ISSUERS }) => {
    const scope: RevocationScope = { issuers, reach, filter: { ...noFilter, ...filter }, exclude: nothingExcluded, cutoff: '2100-01-01T00:00:00Z' }
    const walk = await chooseWalk(db, scope)
    if (walk === null) throw new Error('nothing is meant')
    expect(walk.kind).toBe(walks)
    const { values, next } = createStatement()
    const text = entriesOf(walk, next, { match: matchingSessions(scope, next, walk.kind), most: `${next(2_000)}::int`, after: `${next([])}::text[]` })
    await plain.query(`SET plan_cache_mode = ${mode}`)
    await plain.query(`DEALLOCATE ALL`)
    await plain.query(`PREPARE walked AS ${text}`)
    const { rows } = await plain.query<{ 'QUERY PLAN': [{ Plan: Node }] }>(`EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE walked(${values.map(literalOf).join(', ')})`)
    const nodes = nodesOf(rows[0]?.['QUERY PLAN'][0].Plan as Node)
    expect(nodes.filter((node) => node['Node Type'] === 'Seq Scan' && node['Relation Name'] !== undefined)).toEqual([])
    expect(nodes.filter((node) => node['Index Name'] !== undefined).map((node) => node['Index Name'])).toContain(index)
    // No more is read than is wanted: no sort, no bitmap of a whole lead.
    expect(nodes.filter((node) => node['Node Type'] === 'Sort' && (node['Actual Rows'] ?? 0) * (node['Actual Loops'] ?? 1) > 12_000)).toEqual([])
    const read = nodes.filter((node) => node['Relation Name'] === 'sessions').reduce((sum, node) => sum + (node['Actual Rows'] ?? 0) * (node['Actual Loops'] ?? 1), 0)
    expect(read).toBeLessThanOrEqual(4_000)
  })
})
