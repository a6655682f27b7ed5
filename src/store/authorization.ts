/**
 * What authorization needs to know of sessions, read in one statement for many requests at once.
 *
 * Reads only, takes no locks. An answer is never older than its question (`coalesce.ts`). If Postgres is away,
 * every question fails as `unavailable`; nothing is answered from memory.
 */
import { CurfewError } from '../errors.ts'
import type { Details } from '../model.ts'
import { createCoalesce } from './coalesce.ts'
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
  /** True where a session of one of these issuers, known by this id or to a participant by this sid, is terminated. */
  isTerminated(sid: string, issuers: readonly string[]): Promise<boolean>
}

interface Ask {
  readonly sessionId: string | null
  readonly sid: string | null
  readonly issuers: readonly string[]
}

interface Answer {
  readonly session: SessionFacts | null
  readonly isTerminated: boolean
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
  /** The position of a sid that is terminated, in rows without an id. */
  readonly asked: number | null
}

// The OR of two EXISTS stops at the first terminated session of each sid, however many share it.
const READ = `
SELECT s.id, s.issuer, s.user_id AS "userId", s.resource_owner AS "resourceOwner", s.token_hash AS "tokenHash",
       s.state = 'terminated' AS terminated, s.sequence::text AS sequence,
       ${wireTime('s.change_date')} AS "changeDate", NULL::int AS asked
FROM sessions s WHERE s.id = ANY($1::text[])
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, a.n
FROM unnest($2::int[], $3::text[], $4::text[]) AS a(n, sid, issuer)
WHERE EXISTS (
  SELECT FROM sessions s WHERE s.id = a.sid AND s.issuer = a.issuer AND s.state = 'terminated'
) OR EXISTS (
  SELECT FROM session_clients c JOIN sessions s ON s.id = c.session_id
  WHERE c.sid = a.sid AND s.issuer = a.issuer AND s.state = 'terminated'
)`

const factsOf = (row: Row): SessionFacts => ({
  issuer: row.issuer,
  userId: row.userId,
  resourceOwner: row.resourceOwner,
  tokenHash: row.tokenHash,
  terminated: row.terminated
    ? { sequence: row.sequence, changeDate: row.changeDate, resourceOwner: row.resourceOwner }
    : null,
})

const read = async (db: Database, asks: readonly Ask[]): Promise<readonly Answer[]> => {
  const sessionIds = new Set<string>()
  const positions: number[] = []
  const sids: string[] = []
  const issuers: string[] = []
  for (const [position, ask] of asks.entries()) {
    if (ask.sessionId !== null) sessionIds.add(ask.sessionId)
    if (ask.sid === null) continue
    for (const issuer of ask.issuers) {
      positions.push(position)
      sids.push(ask.sid)
      issuers.push(issuer)
    }
  }
  const rows = await db
    .$queryRawUnsafe<Row[]>(READ, [...sessionIds], positions, sids, issuers)
    .catch((error: unknown) => {
      throw new CurfewError('unavailable', { cause: error })
    })
  const sessions = new Map<string, SessionFacts>()
  const terminated = new Set<number>()
  for (const row of rows) {
    if (row.id !== null) sessions.set(row.id, factsOf(row))
    else if (row.asked !== null) terminated.add(row.asked)
  }
  return asks.map((ask, position) => ({
    session: ask.sessionId === null ? null : (sessions.get(ask.sessionId) ?? null),
    isTerminated: terminated.has(position),
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
      const { session } = await ask({ sessionId: id, sid: null, issuers: [] })
      return session
    },
    isTerminated: async (sid, issuers) => {
      if (!storable(sid)) return false
      const { isTerminated } = await ask({ sessionId: null, sid, issuers })
      return isTerminated
    },
  }
}
