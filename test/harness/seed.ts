import type { Pool } from 'pg'
import type { TerminateCommand } from '../../src/model.ts'

export interface SeedSession {
  readonly id: string
  readonly issuer?: string
  readonly userId?: string
  readonly resourceOwner?: string
  readonly expiresInSeconds?: number
  readonly cacheKeys?: readonly string[]
  readonly tokenHash?: Uint8Array
  readonly clients?: readonly { clientId: string; sid?: string; sub?: string }[]
}

export const ISSUER = 'https://id.example'

/** Writes live sessions straight into the tables, each with its event 1, as a registration leaves them. */
export const seedSessions = async (sql: Pool, sessions: readonly SeedSession[]): Promise<void> => {
  for (const { id, issuer = ISSUER, userId = 'u1', resourceOwner = 'o1', expiresInSeconds = 3_600, cacheKeys = [], tokenHash, clients = [] } of sessions) {
    await sql.query(
      `WITH s AS (
         INSERT INTO sessions (id, issuer, user_id, resource_owner, sequence, token_hash, registration_hash, creator_issuer, creator_subject,
           cache_keys, born, created_at, change_date, expires_at)
         VALUES ($1, $2, $3, $4, 1, $5, 'seed', $2, 'seeder', $6, now(), now(), date_trunc('milliseconds', now()), now() + make_interval(secs => $7))
         RETURNING id, resource_owner, issuer, change_date)
       INSERT INTO session_events (session_id, sequence, type, actor_issuer, actor_subject, resource_owner, created_at)
       SELECT id, 1, 'session.added', issuer, 'seeder', resource_owner, change_date FROM s`,
      [id, issuer, userId, resourceOwner, tokenHash ?? null, cacheKeys, expiresInSeconds],
    )
    for (const { clientId, sid = id, sub = userId } of clients) {
      await sql.query('INSERT INTO session_clients VALUES ($1, $2, $3, $4)', [id, clientId, sid, sub])
    }
  }
}

/** A permitted command to end one session, as authorization makes it. */
export const command = (sessionId: string, change: Partial<TerminateCommand> = {}): TerminateCommand => ({
  sessionId,
  issuers: [ISSUER],
  actor: { issuer: ISSUER, subject: 'admin' },
  mode: 'logout',
  reason: null,
  ...change,
})
