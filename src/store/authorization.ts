/**
 * What authorization needs to know of sessions, read in one statement for many requests at once.
 *
 * Reads only, takes no locks. An answer is never older than its question (`coalesce.ts`). If Postgres is away,
 * every question fails as `unavailable`; nothing is answered from memory.
 */
import { CurfewError } from '../errors.ts'
import type { Actor, Details } from '../model.ts'
import { createCoalesce } from './coalesce.ts'
import { ruleThatKills, sessionBorn } from './cutoff-match.ts'
import type { Database } from './postgres.ts'
import { wireTime } from './wire-time.ts'

/** What decides whether a session may be ended, and what to answer if it already is. */
export interface SessionFacts {
  readonly issuer: string
  readonly userId: string
  readonly resourceOwner: string
  readonly tokenHash: Uint8Array | null
  /** The first termination's details; null: not terminated. */
  readonly terminated: Details | null
}

export interface AuthorizationReader {
  /** The session of this id, of whatever issuer; null: there is none. */
  session(id: string): Promise<SessionFacts | null>
  /**
   * By what a token is dead, or null: a session of one of its issuers, known by its `sid` as id or to a participant, is
   * terminated or killed by a rule; or a rule kills the token itself, by its own issuer, subject, organizations and birth.
   */
  death(token: TokenFacts): Promise<Death | null>
}

/** What of a verified token decides whether it is dead. */
export interface TokenFacts {
  readonly actor: Actor
  readonly sid: string | null
  readonly bornMs: number
  readonly organizations: readonly string[]
  readonly sessionIssuers: readonly string[]
}

/** What killed: a session's termination, or a cutoff rule. `id` is the session's or the rule's. */
export interface Death {
  readonly by: 'session' | 'rule'
  readonly issuer: string
  readonly id: string
}

interface Ask {
  readonly sessionId: string | null
  readonly token: TokenFacts | null
}

interface Answer {
  readonly session: SessionFacts | null
  readonly death: Death | null
}

interface Row {
  readonly id: string | null
  readonly issuer: string
  readonly userId: string
  readonly resourceOwner: string
  readonly tokenHash: Uint8Array | null
  readonly terminated: boolean
  readonly sequence: string
  readonly changeDate: string
  /** In rows without an id: the position of a token that is dead, by what, and that one's id. */
  readonly asked: number | null
  readonly deadBy: Death['by'] | null
  readonly deadId: string | null
}

const columns = 's.id, s.issuer, s.resource_owner, s.user_id, s.born, s.state'
// An excluded session keeps its tokens, also those that know it by a participant's sid.
const tokenBorn = {
  issuer: 't.issuer',
  resourceOwner: 't.organization',
  userId: 't.subject',
  born: 'to_timestamp(t.born / 1000)',
  excluded: `t.sid = ANY (r.exclude_sessions) OR EXISTS (
    SELECT FROM session_clients c WHERE c.sid = t.sid AND c.session_id = ANY (r.exclude_sessions))`,
}

// Each LIMIT 1 stops at the first dead session of a sid, however many share it. Each OFFSET 0 keeps what it fences from
// being worked out once for every mention.
const READ = `
SELECT s.id, s.issuer, s.user_id AS "userId", s.resource_owner AS "resourceOwner", s.token_hash AS "tokenHash",
       s.state = 'terminated' AS terminated, s.sequence::text AS sequence,
       ${wireTime('s.change_date')} AS "changeDate", NULL::int AS asked, NULL::text AS "deadBy", NULL::text AS "deadId"
FROM sessions s WHERE s.id = ANY($1::text[])
UNION ALL
SELECT NULL, a.issuer, NULL, NULL, NULL, NULL, NULL, NULL, a.n, CASE WHEN d.rule IS NULL THEN 'session' ELSE 'rule' END, coalesce(d.rule, d.id)
FROM unnest($2::int[], $3::text[], $4::text[]) AS a(n, sid, issuer) CROSS JOIN LATERAL (
  SELECT j.id, j.rule FROM (
    SELECT k.id, k.state, CASE WHEN k.state = 'active' THEN ${ruleThatKills(sessionBorn('k'))}::text END AS rule FROM (
      SELECT ${columns} FROM sessions s WHERE s.id = a.sid AND s.issuer = a.issuer
      UNION ALL
      SELECT ${columns} FROM session_clients c JOIN sessions s ON s.id = c.session_id WHERE c.sid = a.sid AND s.issuer = a.issuer
    ) k OFFSET 0
  ) j WHERE j.state = 'terminated' OR j.rule IS NOT NULL LIMIT 1
) d
UNION ALL
SELECT NULL, j.issuer, NULL, NULL, NULL, NULL, NULL, NULL, j.n, 'rule', j.rule
FROM (
  SELECT t.n, t.issuer, ${ruleThatKills(tokenBorn)}::text AS rule
  FROM unnest($5::int[], $6::text[], $7::text[], $8::text[], $9::float8[], $10::text[]) AS t(n, issuer, subject, organization, born, sid)
  OFFSET 0
) j WHERE j.rule IS NOT NULL`

const factsOf = (row: Omit<Row, 'asked' | 'deadBy' | 'deadId'>): SessionFacts => ({
  issuer: row.issuer,
  userId: row.userId,
  resourceOwner: row.resourceOwner,
  tokenHash: row.tokenHash,
  terminated: row.terminated
    ? { sequence: row.sequence, changeDate: row.changeDate, resourceOwner: row.resourceOwner }
    : null,
})

/** The parameters of the statement that ask about tokens, a column each. */
const tokenColumns = (asks: readonly Ask[]) => {
  const bySid: [number[], string[], string[]] = [[], [], []]
  const byToken: [number[], string[], string[], (string | null)[], number[], (string | null)[]] = [[], [], [], [], [], []]
  for (const [position, { token }] of asks.entries()) {
    if (token === null) continue
    const sid = token.sid !== null && storable(token.sid) ? token.sid : null
    for (const issuer of sid === null ? [] : token.sessionIssuers) {
      bySid[0].push(position)
      bySid[1].push(sid ?? '')
      bySid[2].push(issuer)
    }
    const organizations = token.organizations.filter(storable)
    // A token without an organization is asked about too: rules need not name one.
    for (const organization of organizations.length === 0 ? [null] : organizations) {
      byToken[0].push(position)
      byToken[1].push(token.actor.issuer)
      byToken[2].push(token.actor.subject)
      byToken[3].push(organization)
      // Further back than Postgres' times reach there is nothing to tell apart.
      byToken[4].push(Math.max(0, token.bornMs))
      byToken[5].push(sid)
    }
  }
  return [...bySid, ...byToken]
}

const read = async (db: Database, asks: readonly Ask[]): Promise<readonly Answer[]> => {
  const sessionIds = new Set(asks.flatMap(({ sessionId }) => (sessionId === null ? [] : [sessionId])))
  const rows = await db.$queryRawUnsafe<Row[]>(READ, [...sessionIds], ...tokenColumns(asks)).catch((error: unknown) => {
    throw new CurfewError('unavailable', { cause: error })
  })
  const sessions = new Map<string, SessionFacts>()
  const deaths = new Map<number, Death>()
  for (const { asked, deadBy, deadId, ...row } of rows) {
    if (row.id !== null) sessions.set(row.id, factsOf(row))
    // Of several, a termination says more than a rule.
    else if (asked !== null && deadBy !== null && deadId !== null && (deadBy === 'session' || !deaths.has(asked))) {
      deaths.set(asked, { by: deadBy, issuer: row.issuer, id: deadId })
    }
  }
  return asks.map(({ sessionId }, position) => ({
    session: sessionId === null ? null : (sessions.get(sessionId) ?? null),
    death: deaths.get(position) ?? null,
  }))
}

// Postgres' text cannot hold NUL: nothing stored can match, and asking would fail the whole batch.
const storable = (text: string): boolean => !text.includes('\0')

/** The default of MAX_WAITING: more could not be ended either. */
const MAX_WAITING = 20_000

/**
 * A reader that answers concurrent questions of both kinds with one query.
 *
 * @param options.maxWaiting questions that wait for a query at most.
 * @throws (rejects) CurfewError unavailable where Postgres cannot be asked, overloaded where too many wait.
 */
export const createAuthorizationReader = (db: Database, { maxWaiting = MAX_WAITING }: { maxWaiting?: number } = {}): AuthorizationReader => {
  const ask = createCoalesce<Ask, Answer>({
    run: (asks) => read(db, asks),
    // As many as a commit takes, so that reading never needs more turns than ending.
    maxBatch: 500,
    // Two keep Postgres busy while results are decoded, and leave the pool to others.
    maxInFlight: 2,
    maxWaiting,
  })
  return {
    session: async (id) => {
      if (!storable(id)) return null
      const { session } = await ask({ sessionId: id, token: null })
      return session
    },
    death: async (token) => (await ask({ sessionId: null, token })).death,
  }
}
