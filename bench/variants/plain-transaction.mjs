/**
 * One session in one transaction on `pg`, as a careful team writes it: prepared statements, the state in the UPDATE's
 * condition so that two requests cannot both end it, and a read only where that found nothing. No outbox, no caches.
 */
import pg from 'pg'

/** @typedef {import('../../dist/model.js').Details} Details */

const END = {
  name: 'end-session',
  text: `UPDATE sessions SET state = 'terminated', sequence = sequence + 1,
      change_date = date_trunc('milliseconds', now()), terminated_at = date_trunc('milliseconds', now())
    WHERE id = $1 AND issuer = ANY($2) AND state = 'active' RETURNING sequence, change_date, resource_owner`,
}
const TELL = {
  name: 'append-event',
  text: `INSERT INTO session_events (session_id, sequence, type, mode, actor_issuer, actor_subject, resource_owner, created_at)
    VALUES ($1, $2, 'session.terminated', 'logout', $3, $4, $5, $6)`,
}
const READ = { name: 'read-session', text: 'SELECT sequence, change_date, resource_owner FROM sessions WHERE id = $1 AND issuer = ANY($2)' }

const detailsOf = (/** @type {{ sequence: string, change_date: Date, resource_owner: string }} */ row) => ({
  sequence: row.sequence,
  changeDate: row.change_date.toISOString(),
  resourceOwner: row.resource_owner,
})

/**
 * @param {{ url: string, connections: number }} options
 */
export const createPlainTransaction = ({ url, connections }) => {
  const pool = new pg.Pool({ connectionString: url, max: connections })
  pool.on('error', () => {})

  /**
   * @param {{ sessionId: string, issuers: readonly string[], actor: { issuer: string, subject: string } }} command
   * @returns {Promise<Details | null>}
   */
  const end = async ({ sessionId, issuers, actor }) => {
    const client = await pool.connect()
    let failure
    try {
      await client.query('BEGIN')
      const { rows: [ended] } = await client.query({ ...END, values: [sessionId, issuers] })
      const { rows: [row] } = ended === undefined ? await client.query({ ...READ, values: [sessionId, issuers] }) : { rows: [ended] }
      if (ended !== undefined) {
        await client.query({ ...TELL, values: [sessionId, ended.sequence, actor.issuer, actor.subject, ended.resource_owner, ended.change_date] })
      }
      await client.query('COMMIT')
      return row === undefined ? null : detailsOf(row)
    } catch (error) {
      failure = error instanceof Error ? error : new Error(String(error))
      throw error
    } finally {
      // A connection with a failed transaction is not given to the next.
      client.release(failure)
    }
  }
  return { end, close: () => pool.end() }
}
