/**
 * What a revocation would end and whom that would concern, read in one statement along the index that the revocation
 * itself would walk. Of very many sessions, the first are looked at.
 *
 * Sessions are grouped before receivers are looked up, so that a hundred thousand cost a few groups, not as many look-ups.
 */
import type { ReceiverType, RevocationScope } from '../model.ts'
import type { Database } from './postgres.ts'
import { matchingSessions } from './revocation-filter.ts'
import { chooseWalk, entriesOf } from './revocation-walk.ts'
import { createStatement } from './statement.ts'
import { wireTime } from './wire-time.ts'

export interface SampledSession {
  readonly sessionId: string
  readonly issuer: string
  readonly userId: string
  readonly resourceOwner: string
  /** RFC 3339 UTC. */
  readonly born: string
  readonly expirationDate: string
}

/** `open`: its breaker is; it has failed and is left alone for now. `disabled`: switched off, by itself or by someone. */
export type Reachability = 'reachable' | 'open' | 'disabled'

export interface ConcernedReceiver {
  readonly id: string
  readonly type: ReceiverType
  readonly clientId: string | null
  /** Participations of sessions that it would be told of. */
  readonly count: number
  readonly reachability: Reachability
}

export interface Impact {
  /** Sessions looked at: what follows counts these. */
  readonly sessions: number
  /** Different users among them. */
  readonly users: number
  readonly sample: readonly SampledSession[]
  /** Those with the most sessions first. */
  readonly organizations: readonly { readonly resourceOwner: string; readonly count: number }[]
  readonly clients: readonly { readonly clientId: string; readonly count: number }[]
  /** Within the scope's reach. Those that cannot be reached at present first. */
  readonly receivers: readonly ConcernedReceiver[]
}

const NOTHING: Impact = { sessions: 0, users: 0, sample: [], organizations: [], clients: [], receivers: [] }

/** Enough to recognize what one did not mean. */
const SAMPLED = 100
/** Of organizations, clients and receivers each: a page that people read. */
const LISTED = 100

const REACHABILITY = `CASE WHEN NOT r.enabled THEN 'disabled' WHEN r.broken_until > now() THEN 'open' ELSE 'reachable' END`

const listOf = (rows: string): string => `coalesce((SELECT jsonb_agg(to_jsonb(l)) FROM (${rows}) l), '[]')`

/** @param most sessions looked at. */
export const readImpact = async (db: Pick<Database, '$queryRawUnsafe'>, scope: RevocationScope, most: number): Promise<Impact> => {
  const walk = await chooseWalk(db, scope)
  if (walk === null) return NOTHING
  const { values, next } = createStatement()
  const entries = entriesOf(walk, next, { match: matchingSessions(scope, next, walk.kind), most: `${next(most * 10)}::int` })
  const reach = scope.reach === 'instance' ? { instance: true, organizations: [] } : { instance: false, organizations: [...scope.reach] }
  const within = `(${next(reach.instance)}::boolean OR r.resource_owner = ANY(${next(reach.organizations)}::text[]))
    AND (r.issuer IS NULL OR r.issuer = ANY(${next(scope.issuers)}::text[]))`
  const [impact] = await db.$queryRawUnsafe<Impact[]>(
    `WITH found AS MATERIALIZED (
       SELECT s.id, s.issuer, s.user_id, s.resource_owner, s.born, s.expires_at
       FROM (SELECT place FROM (${entries}) e WHERE e.live LIMIT ${next(most)}::int) p
       CROSS JOIN LATERAL (SELECT * FROM sessions WHERE ctid = p.place OFFSET 0) s
     ), grouped AS MATERIALIZED (
       SELECT issuer, resource_owner, count(*) AS sessions FROM found GROUP BY issuer, resource_owner
     ), taking_part AS MATERIALIZED (
       SELECT f.issuer, f.resource_owner, c.client_id, sum(c.sids) AS participations, count(*) AS sessions
       FROM found f CROSS JOIN LATERAL (SELECT client_id, count(*) AS sids FROM session_clients WHERE session_id = f.id GROUP BY client_id OFFSET 0) c
       GROUP BY f.issuer, f.resource_owner, c.client_id
     ), told AS (
       SELECT r.id, sum(t.participations) AS sessions
       FROM taking_part t JOIN receivers r ON r.type = 'backchannel_logout' AND r.issuer = t.issuer AND r.client_id = t.client_id
         AND (r.resource_owner IS NULL OR r.resource_owner = t.resource_owner)
       GROUP BY r.id
       UNION ALL
       SELECT r.id, sum(g.sessions)
       FROM grouped g JOIN receivers r ON r.type = 'webhook' AND r.issuer = g.issuer AND 'session.terminated' = ANY(r.events)
         AND (r.resource_owner IS NULL OR r.resource_owner = g.resource_owner)
       GROUP BY r.id
     )
     SELECT (SELECT count(*)::int FROM found) AS sessions, (SELECT count(*)::int FROM (SELECT DISTINCT issuer, user_id FROM found) u) AS users,
       ${listOf(`SELECT id AS "sessionId", issuer, user_id AS "userId", resource_owner AS "resourceOwner", ${wireTime('born')} AS born,
         ${wireTime('expires_at')} AS "expirationDate" FROM found LIMIT ${SAMPLED}`)} AS sample,
       ${listOf(`SELECT resource_owner AS "resourceOwner", sum(sessions) AS count FROM grouped
         GROUP BY resource_owner ORDER BY 2 DESC, 1 LIMIT ${LISTED}`)} AS organizations,
       ${listOf(`SELECT client_id AS "clientId", sum(sessions) AS count FROM taking_part
         GROUP BY client_id ORDER BY 2 DESC, 1 LIMIT ${LISTED}`)} AS clients,
       ${listOf(`SELECT r.id, r.type, r.client_id AS "clientId", t.sessions AS count, ${REACHABILITY} AS reachability
         FROM told t JOIN receivers r ON r.id = t.id WHERE ${within}
         ORDER BY ${REACHABILITY} = 'reachable', t.sessions DESC, r.id LIMIT ${LISTED}`)} AS receivers`,
    ...values,
  )
  if (impact === undefined) throw new Error('The preview returned no row')
  return impact
}

/** Says whether a scope means the live session that tokens of this issuer name by this `sid`. */
export const meansSession = async (
  db: Pick<Database, '$queryRawUnsafe'>,
  scope: RevocationScope,
  { issuer, sid }: { issuer: string; sid: string },
): Promise<boolean> => {
  const { values, next } = createStatement()
  const named = next(sid)
  const rows = await db.$queryRawUnsafe<unknown[]>(
    `SELECT FROM sessions s
     WHERE s.id = ANY(ARRAY(SELECT ${named}::text UNION SELECT session_id FROM session_clients WHERE sid = ${named}::text))
       AND s.issuer = ${next(issuer)} AND s.state = 'active' AND ${matchingSessions(scope, next)} LIMIT 1`,
    ...values,
  )
  return rows.length > 0
}

/** The cutoff that a revocation would have that is accepted now: RFC 3339 UTC, a whole second. */
export const readCutoff = async (db: Pick<Database, '$queryRawUnsafe'>, bornBefore: string | null): Promise<string> => {
  const [row] = await db.$queryRawUnsafe<{ cutoff: string }[]>(
    `SELECT ${wireTime('to_timestamp(ceil(extract(epoch FROM least($1::text::timestamptz, clock_timestamp()))))')} AS cutoff`, bornBefore,
  )
  if (row === undefined) throw new Error('The clock returned no row')
  return row.cutoff
}
