/** What must be known of one session to accept its end. */
import type { Details } from '../model.ts'
import type { Database } from './postgres.ts'
import { wireTime } from './wire-time.ts'

export interface EndableSession {
  readonly issuer: string
  readonly resourceOwner: string
  /** RFC 3339 UTC. */
  readonly born: string
  /** Of its termination, or null: it lives. */
  readonly terminated: Details | null
  /** So many revocations are under way that one more log-out had better be none. */
  readonly crowded: boolean
}

/** A log-out takes the engine some milliseconds; nobody is to wait for seconds, and no incident behind log-outs. */
const MOST_RUNNING = 1_000

/** A session of one of these issuers, or null. */
export const readEndable = async (
  db: Pick<Database, '$queryRawUnsafe'>,
  { sessionId, issuers }: { sessionId: string; issuers: readonly string[] },
): Promise<EndableSession | null> => {
  const [row] = await db.$queryRawUnsafe<EndableSession[]>(
    `SELECT s.issuer, s.resource_owner AS "resourceOwner", ${wireTime('s.born')} AS born,
       CASE WHEN s.state = 'terminated' THEN jsonb_build_object(
         'sequence', s.sequence::text, 'changeDate', ${wireTime('s.change_date')}, 'resourceOwner', s.resource_owner) END AS terminated,
       (SELECT count(*) FROM (SELECT FROM revocations WHERE state = 'running' LIMIT ${MOST_RUNNING}) r) = ${MOST_RUNNING} AS crowded
     FROM sessions s WHERE s.id = $1 AND s.issuer = ANY($2::text[])`,
    sessionId, issuers,
  )
  return row ?? null
}
