/** A revocation that has ended sessions, written straight into the tables as the engine and the router leave them. */
import { randomUUID } from 'node:crypto'
import type { Pool } from 'pg'
import { seedSessions } from '../harness/seed.ts'
import type { SeedSession } from '../harness/seed.ts'

export interface EndedRevocation {
  readonly id: string
  readonly sessions: readonly SeedSession[]
}

/** @param told deliveries, by session and participant: the receiver and the state. Whoever has none was not told. */
export const seedRevocation = async (sql: Pool, options: {
  issuer: string
  state?: 'running' | 'done'
  organizations?: readonly string[]
  actor?: string
  reason?: string
  sessions: readonly SeedSession[]
  told?: readonly { session: string; receiver: string; clientId?: string; state: string; outcome?: string }[]
}): Promise<string> => {
  const { issuer, state = 'done', organizations = [], actor = 'responder', reason = 'stolen laptops', sessions, told = [] } = options
  const id = randomUUID()
  await seedSessions(sql, sessions.map((session) => ({ issuer, ...session })))
  const filter = { resourceOwners: [], userIds: [], sessionIds: sessions.map((session) => session.id), clientIds: [], fingerprintIds: [], ips: [], bornBefore: null, bornAfter: null, includeExpired: false, all: false }
  await sql.query(
    `INSERT INTO revocations (id, state, mode, reason, ticket, actor_issuer, actor_subject, issuers, instance, organizations, filter, exclude,
       containment, cutoff_time, expected, expected_exact, pass, committed_at, enforced_at)
     VALUES ($1, $2::text::revocation_state, 'revoke', $3, 'INC-1', $4, $5, ARRAY[$4], $6, $7, $8, '{"userIds":["break-glass"],"sessionIds":[]}',
       'rows', now() + interval '1 second', $9, true, 2, CASE WHEN $2 = 'done' THEN now() END, CASE WHEN $2 = 'done' THEN now() END)`,
    [id, state, reason, issuer, actor, organizations.length === 0, organizations, JSON.stringify(filter), sessions.length])
  await sql.query(`INSERT INTO revocation_slices (revocation_id, number, walks, start_key, until_key, at_key, ended, matched, terminated)
    VALUES ($1, 1, 'ids', '{}', '{}', '{}', true, $2, $2)`, [id, sessions.length])
  await sql.query(`INSERT INTO revocation_events (revocation_id, type, actor_issuer, actor_subject) VALUES ($1, 'revocation.accepted', $2, $3), ($1, 'terminations.paused', $2, 'second'), ($1, 'revocation.committed', NULL, NULL)`, [id, issuer, actor])
  // Two commits, so that a reader has to turn a page of them.
  const half = Math.ceil(sessions.length / 2)
  for (const part of [sessions.slice(0, half), sessions.slice(half)]) {
    await sql.query(
      `WITH c AS (INSERT INTO commits (sessions, routed_at, enforced_at, revocation_id) VALUES (cardinality($1::text[]), now(), now(), $2) RETURNING id),
       s AS (UPDATE sessions SET state = 'terminated', sequence = 2, change_date = date_trunc('milliseconds', now()), terminated_at = date_trunc('milliseconds', now())
         WHERE id = ANY($1::text[]) RETURNING id, resource_owner, change_date)
       INSERT INTO session_events (session_id, sequence, type, mode, actor_issuer, actor_subject, commit_id, revocation_id, resource_owner, created_at)
       SELECT s.id, 2, 'session.terminated', 'revoke', $3, $4, c.id, $2, s.resource_owner, s.change_date FROM s, c`,
      [part.map((session) => session.id), id, issuer, actor])
  }
  for (const { session, receiver, clientId = '', state: became, outcome = null } of told) {
    await sql.query(
      `INSERT INTO deliveries (receiver_id, session_id, client_id, sid, sub, issuer, moot_at, revocation_id, state, last_outcome, done_at)
       SELECT $1, $2, $3, $2, 'u1', $4, now() + interval '1 hour', $5, $6::text::delivery_state, $7, CASE WHEN $6 <> 'pending' THEN now() END`,
      [receiver, session, clientId, issuer, id, became, outcome])
  }
  await sql.query(
    `INSERT INTO revocation_outcomes (revocation_id, receiver_id, total, pending, acknowledged, failed, moot, acknowledged_at)
     SELECT revocation_id, receiver_id, count(*), count(*) FILTER (WHERE state = 'pending'), count(*) FILTER (WHERE state = 'acknowledged'),
       count(*) FILTER (WHERE state = 'failed'), count(*) FILTER (WHERE state = 'moot'), max(done_at) FILTER (WHERE state = 'acknowledged')
     FROM deliveries WHERE revocation_id = $1 GROUP BY revocation_id, receiver_id`, [id])
  return id
}
