import { createHash } from 'node:crypto'
import type { Pool } from 'pg'
import { newSessionToken } from '../../src/auth/session-token.ts'
import type { Registration } from '../../src/store/session-add.ts'
import type { Writer } from '../../src/store/session-register.ts'
import { ISSUER } from './seed.ts'

/** A registrar that speaks for the seeded issuer. */
export const registrar: Writer = { actor: { issuer: ISSUER, subject: 'registrar' }, issuers: [ISSUER] }

/** A registration with a fresh token, hashed over what it says as the API does. */
export const registration = (id: string, change: Partial<Registration> = {}): Registration => {
  const said = {
    id,
    issuer: ISSUER,
    userId: 'u1',
    resourceOwner: 'o1',
    clients: [],
    userAgent: null,
    metadata: {},
    cacheKeys: [],
    creationDate: null,
    authTime: null,
    expiry: null,
    ...change,
  }
  return { hash: createHash('sha256').update(JSON.stringify(said)).digest(), tokenHash: newSessionToken().hash, ...said }
}

/** The types of a session's events in order; throws where their sequence has a gap. */
export const eventsOf = async (sql: Pool, id: string): Promise<string[]> => {
  const { rows } = await sql.query<{ type: string; sequence: string }>(
    'SELECT type, sequence::text FROM session_events e WHERE session_id = $1 ORDER BY e.sequence',
    [id],
  )
  rows.forEach(({ sequence }, at) => {
    if (sequence !== String(at + 1)) throw new Error(`Event ${at + 1} of ${id} has sequence ${sequence}`)
  })
  return rows.map(({ type }) => type)
}

/** A session's row, as it is. */
export const rowOf = async (sql: Pool, id: string): Promise<Record<string, unknown> | undefined> => {
  const { rows } = await sql.query<Record<string, unknown>>('SELECT *, host(ip) AS ip_text FROM sessions WHERE id = $1', [id])
  return rows[0]
}
