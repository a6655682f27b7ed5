/**
 * Live sessions to end, seeded with set-based SQL as registrations leave them, and the order in which they are ended:
 * a permutation of each block of ids, so that neighbours in time are far apart on disk.
 */
import { createHash } from 'node:crypto'

/** Ids look like a snowflake of 18 digits: this and eight of our own. */
export const ID_PREFIX = '3100000000'

/** Rows of one INSERT: a few seconds each, so an interrupted run ends soon. */
const ROWS_PER_STATEMENT = 100_000
/** Organizations and users per session: as a large instance has them. */
const ORGANIZATIONS = 200
const SESSIONS_PER_USER = 2

/**
 * A part of one block's permutation: position p is the id `first + (p * step) % size`.
 *
 * @typedef {object} Walk
 * @property {number} first
 * @property {number} size
 * @property {number} step
 * @property {number} position  Where to begin.
 *
 * @typedef {ReturnType<typeof createSessions>} Sessions
 */

const SESSIONS = `
INSERT INTO sessions (id, issuer, user_id, resource_owner, sequence, token_hash, registration_hash,
  creator_issuer, creator_subject, fingerprint_id, ip, user_agent, born, created_at, change_date, expires_at)
SELECT $1 || lpad(n::text, 8, '0'), $2, 'user-' || n / ${SESSIONS_PER_USER}, 'org-' || n % ${ORGANIZATIONS}, 1, sha256(n::text::bytea), $3,
  $2, 'registrar', 'fingerprint-' || n, '10.0.0.0'::inet + n, '{"description": "Firefox on Linux"}', at, at, at,
  clock_timestamp() + make_interval(secs => $6)
FROM generate_series($4::int, $5::int - 1) n,
  LATERAL (SELECT date_trunc('milliseconds', now()) - make_interval(secs => n % 86400) AS at) a`

const EVENTS = `
INSERT INTO session_events (session_id, sequence, type, actor_issuer, actor_subject, resource_owner, created_at)
SELECT id, 1, 'session.added', creator_issuer, creator_subject, resource_owner, created_at
FROM sessions WHERE id >= $1 || lpad($2::text, 8, '0') AND id < $1 || lpad($3::text, 8, '0')`

const greatestCommonDivisor = (/** @type {number} */ a, /** @type {number} */ b) => {
  while (b !== 0) [a, b] = [b, a % b]
  return a
}

/** A step near the golden section of the size: consecutive ids are far apart, and near ones are long apart in time. */
export const stepOf = (/** @type {number} */ size) => {
  let step = Math.max(1, Math.round(size * 0.618_033_988_75))
  while (greatestCommonDivisor(step, size) !== 1) step += 1
  return step
}

export const idAt = (/** @type {Omit<Walk, 'position'>} */ { first, size, step }, /** @type {number} */ position) =>
  ID_PREFIX + String(first + ((position * step) % size)).padStart(8, '0')

/**
 * @param {{ sql: import('pg').Pool, issuer: string, lifetimeSeconds?: number }} deps
 */
export const createSessions = ({ sql, issuer, lifetimeSeconds = 86_400 }) => {
  let seeded = 0
  /** What is added when the first block is used up: a third of it, so that little is left over and little is waited for. */
  let further = 0
  /** @type {Walk} */
  let walk = { first: 0, size: 0, step: 1, position: 0 }

  const insert = async (/** @type {number} */ from, /** @type {number} */ to) => {
    const hash = createHash('sha256').update('bench').digest()
    for (let at = from; at < to; at += ROWS_PER_STATEMENT) {
      const end = Math.min(to, at + ROWS_PER_STATEMENT)
      await sql.query(SESSIONS, [ID_PREFIX, issuer, hash, at, end, lifetimeSeconds])
      await sql.query(EVENTS, [ID_PREFIX, at, end])
    }
  }

  const addBlock = async (/** @type {number} */ size) => {
    await insert(seeded, seeded + size)
    walk = { first: seeded, size, step: stepOf(size), position: 0 }
    seeded += size
  }

  return {
    get seeded() {
      return seeded
    },
    /** The first block. Leaves the tables vacuumed, analyzed and on disk. */
    seed: async (/** @type {number} */ size) => {
      further = Math.ceil(size / 3)
      await addBlock(size)
      // Pages are touched once after the seeding, so that the first variant does not pay for what all profit from.
      await sql.query(`UPDATE sessions SET metadata = '{"seen": true}' WHERE hashtext(id) % 20 = 0`)
      await sql.query('VACUUM (ANALYZE) sessions, session_events')
      await sql.query('CHECKPOINT')
    },
    /** A walk with room for so many sessions; seeds another block where the last one is nearly used up. */
    walkFor: async (/** @type {number} */ sessions) => {
      if (walk.size - walk.position < sessions) await addBlock(Math.max(further, sessions))
      return { ...walk }
    },
    /** Marks the walk's sessions up to this position as used. */
    used: (/** @type {number} */ position) => {
      walk.position = position
    },
  }
}
