import { randomUUID } from 'node:crypto'
import type { Pool } from 'pg'
import { ISSUER } from './seed.ts'

export interface SeedRevocation {
  readonly id?: string
  readonly issuers?: readonly string[]
  /** Null: the whole instance. */
  readonly organizations?: readonly string[] | null
  readonly filter?: Record<string, unknown>
  readonly mode?: 'logout' | 'revoke'
  readonly reason?: string | null
  readonly ticket?: string | null
  readonly deliveriesPerSecond?: number | null
}

/** Writes a running revocation straight into the tables, as an acceptance leaves it, and returns its id. */
export const seedRevocation = async (sql: Pool, revocation: SeedRevocation = {}): Promise<string> => {
  const {
    id = randomUUID(), issuers = [ISSUER], organizations = null, filter = { all: true }, mode = 'revoke', reason = 'stolen laptop', ticket = 'INC-1',
    deliveriesPerSecond = null,
  } = revocation
  await sql.query(
    `INSERT INTO revocations (id, mode, reason, ticket, actor_issuer, actor_subject, issuers, instance, organizations, filter, exclude,
       containment, cutoff_time, deliveries_per_second, expected, expected_exact)
     VALUES ($1, $2, $3, $4, $5, 'responder', $6, $7, $8, $9, '{}', 'rows', date_trunc('second', now()) + interval '1 second', $10, 0, true)`,
    [id, mode, reason, ticket, ISSUER, issuers, organizations === null, organizations ?? [], filter, deliveriesPerSecond],
  )
  return id
}

/** Ends sessions by a revocation in one transaction, as a chunk of the engine does. */
export const endByRevocation = async (sql: Pool, revocationId: string, sessionIds: readonly string[]): Promise<void> => {
  await sql.query(
    `WITH ended AS (
       UPDATE sessions SET state = 'terminated', sequence = sequence + 1, terminated_at = now(), change_date = now()
       WHERE id = ANY($2) AND state = 'active' RETURNING id, sequence, resource_owner
     ), receipt AS (
       INSERT INTO commits (sessions, revocation_id) SELECT count(*), $1 FROM ended RETURNING id
     )
     INSERT INTO session_events (session_id, sequence, type, mode, reason, actor_issuer, actor_subject, revocation_id, commit_id, resource_owner, created_at)
     SELECT e.id, e.sequence, 'session.terminated', r.mode, r.reason, r.actor_issuer, r.actor_subject, r.id, c.id, e.resource_owner, now()
     FROM ended e CROSS JOIN receipt c CROSS JOIN revocations r WHERE r.id = $1`,
    [revocationId, sessionIds],
  )
}

/** The engine's last milestones. */
export const finishRevocation = async (sql: Pool, revocationId: string): Promise<void> => {
  await sql.query(`UPDATE revocations SET state = 'done', committed_at = now(), enforced_at = now() WHERE id = $1`, [revocationId])
}

/** What each receiver's outcome says, and what its deliveries say: they must be the same. */
export const outcomesOf = async (sql: Pool, revocationId: string) => {
  const { rows } = await sql.query<{ receiver_id: string; total: number; pending: number; acknowledged: number; failed: number; moot: number }>(
    `SELECT receiver_id, total::int, pending::int, acknowledged::int, failed::int, moot::int FROM revocation_outcomes
     WHERE revocation_id = $1 ORDER BY receiver_id`, [revocationId])
  return rows
}

/** The same, counted from the deliveries. */
export const countedOutcomes = async (sql: Pool, revocationId: string) => {
  const { rows } = await sql.query(
    `SELECT receiver_id, count(*)::int AS total, count(*) FILTER (WHERE state = 'pending')::int AS pending,
       count(*) FILTER (WHERE state = 'acknowledged')::int AS acknowledged, count(*) FILTER (WHERE state = 'failed')::int AS failed,
       count(*) FILTER (WHERE state = 'moot')::int AS moot
     FROM deliveries WHERE revocation_id = $1 GROUP BY 1 ORDER BY 1`, [revocationId])
  return rows
}
