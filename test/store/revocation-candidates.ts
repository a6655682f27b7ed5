/** Sessions of every kind that a filter can tell apart, and a plain reading of filters in memory. */
import { isIPv4 } from 'node:net'
import type { Pool } from 'pg'
import type { RevocationFilter, RevocationScope } from '../../src/model.ts'

export const noFilter: RevocationFilter = {
  resourceOwners: [], userIds: [], sessionIds: [], clientIds: [], fingerprintIds: [], ips: [], bornBefore: null, bornAfter: null, includeExpired: false, all: false,
}

export interface Candidate {
  readonly id: string
  readonly issuer: string
  readonly userId: string
  readonly organization: string
  readonly fingerprintId: string | null
  readonly ip: string | null
  readonly born: string
  readonly live: boolean
  readonly expired: boolean
  /** With its sids. */
  readonly clients: readonly (readonly [clientId: string, sid: string])[]
}

const issuers = ['https://a.example', 'https://b.example']
const organizations = ['o1', 'o2', 'ö3']
const users = ['u1', 'u2', 'u3', 'u4']
const fingerprints = ['f1', 'f2']
const clients = ['c1', 'c2', 'c3']
const addresses = ['10.0.0.1', '10.0.0.2', '10.1.0.1', '192.168.7.7', '2001:db8::1', '2001:db8:1::1']
/** Overlapping, single, with bits of a host, of both families, and one of nobody. */
const networks = ['10.0.0.0/8', '10.0.0.0/24', '10.0.0.2', '10.1.2.3/16', '2001:db8::/32', '2001:db8::1', '0.0.0.0/0', '172.16.0.0/12']
const times = ['2026-01-01T00:00:00Z', '2026-01-01T00:00:01Z', '2026-06-01T12:00:00.500Z']

const at = <T>(values: readonly T[], n: number): T => values[n % values.length] as T

/** Every n is a mix of its own, by remainders that have no common factor. */
const sessions = Array.from({ length: 400 }, (_, n): Candidate => ({
  id: `${n % 5 === 0 ? 'ä' : 's'}-${n}`,
  issuer: at(issuers, n),
  userId: at(users, Math.floor(n / 2)),
  organization: at(organizations, n),
  fingerprintId: n % 4 === 0 ? null : at(fingerprints, n),
  ip: n % 5 === 1 ? null : at(addresses, Math.floor(n / 3)),
  born: at(times, Math.floor(n / 7)),
  live: n % 6 !== 0,
  expired: n % 11 === 0,
  clients: at([[], [['c1', `sid-${n}`]], [['c1', `a-${n}`], ['c1', `b-${n}`], ['c2', `a-${n}`]], [['c2', 'x'], ['c3', 'x']]] as const, n),
}))

export const candidates = { issuers, organizations, users, fingerprints, clients, networks, times, sessions }

export const seedCandidates = async (sql: Pool, seeded: readonly Candidate[] = sessions): Promise<void> => {
  await sql.query(
    `INSERT INTO sessions (id, issuer, user_id, resource_owner, state, terminated_at, sequence, registration_hash, creator_issuer, creator_subject,
       fingerprint_id, ip, born, created_at, change_date, expires_at)
     SELECT c.id, c.issuer, c."userId", c.organization, CASE WHEN c.live THEN 'active' ELSE 'terminated' END::session_state,
       CASE WHEN NOT c.live THEN date_trunc('milliseconds', now()) END, 1, 'seed', c.issuer, 'seeder', c."fingerprintId", c.ip, c.born, now(), date_trunc('milliseconds', now()),
       now() + CASE WHEN c.expired THEN -1 ELSE 1 END * interval '1 hour'
     FROM jsonb_to_recordset($1) AS c(id text, issuer text, "userId" text, organization text, live boolean, "fingerprintId" text, ip inet, born timestamptz, expired boolean)`,
    [JSON.stringify(seeded)],
  )
  await sql.query(
    `INSERT INTO session_clients SELECT c ->> 'id', p ->> 0, p ->> 1, 'sub' FROM jsonb_array_elements($1) c, jsonb_array_elements(c -> 'clients') p`,
    [JSON.stringify(seeded)],
  )
}

/** An address as a number: 32 bits, or 128. */
const numberOf = (address: string): bigint => {
  if (isIPv4(address)) return address.split('.').reduce((sum, part) => sum * 256n + BigInt(part), 0n)
  const [head = '', tail = ''] = address.split('::')
  const groups = (text: string) => (text === '' ? [] : text.split(':'))
  const missing = 8 - groups(head).length - groups(tail).length
  const all = [...groups(head), ...Array.from({ length: missing }, () => '0'), ...groups(tail)]
  return all.reduce((sum, group) => sum * 65_536n + BigInt(`0x${group}`), 0n)
}

const liesIn = (address: string, network: string): boolean => {
  const [base = '', length] = network.split('/')
  if (isIPv4(address) !== isIPv4(base)) return false
  const bits = isIPv4(address) ? 32 : 128
  const rest = BigInt(bits - Number(length ?? bits))
  return numberOf(address) >> rest === numberOf(base) >> rest
}

const asked = <T>(values: readonly T[], holds: (value: T) => boolean): boolean => values.length === 0 || values.some(holds)

/** The oracle: as DESIGN §7 reads. The state is not asked. */
export const isMeant = ({ issuers: spokenFor, reach, filter, exclude, cutoff }: RevocationScope, session: Candidate): boolean =>
  spokenFor.includes(session.issuer) &&
  (reach === 'instance' || reach.has(session.organization)) &&
  asked(filter.resourceOwners, (organization) => organization === session.organization) &&
  asked(filter.userIds, (user) => user === session.userId) &&
  asked(filter.sessionIds, (id) => id === session.id) &&
  asked(filter.clientIds, (client) => session.clients.some(([id]) => id === client)) &&
  asked(filter.fingerprintIds, (fingerprint) => fingerprint === session.fingerprintId) &&
  asked(filter.ips, (network) => session.ip !== null && liesIn(session.ip, network)) &&
  (filter.bornAfter === null || Date.parse(session.born) > Date.parse(filter.bornAfter)) &&
  Date.parse(session.born) <= Date.parse(cutoff) &&
  (filter.includeExpired || !session.expired) &&
  !exclude.userIds.includes(session.userId) &&
  !exclude.sessionIds.includes(session.id)
