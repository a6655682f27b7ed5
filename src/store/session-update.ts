/**
 * Changes what may change of a session (metadata, user agent, expiry) and rotates its token, in one statement that
 * decides under the row's lock. A terminated or expired session does not change, nor one that a cutoff rule kills.
 */
import { CurfewError } from '../errors.ts'
import type { ErrorName } from '../errors.ts'
import type { Details } from '../model.ts'
import { CUTOFF_SAYS } from './cutoff-match.ts'
import type { Database } from './postgres.ts'
import { hex } from './session-add.ts'
import type { UserAgent } from './session-add.ts'
import { expiryColumns, expiryRefusal, expirySays } from './session-expiry.ts'
import type { Expiry } from './session-expiry.ts'
import { orAskAgain } from './session-lock.ts'
import type { Writer } from './session-register.ts'
import { wireTime } from './wire-time.ts'

/** What bounds a session's metadata: enough for a login's notes, small enough to be read with every search. */
export const metadataBounds = { keys: 64, bytes: 16_384 } as const

export interface SessionChange {
  readonly id: string
  /** Base64 values; an empty one deletes its key. */
  readonly metadata: Readonly<Record<string, string>> | null
  /** Replaces the whole user agent. */
  readonly userAgent: UserAgent | null
  readonly expiry: Expiry | null
  readonly tokenHash: Uint8Array
}

const UPDATE = `
WITH asked AS MATERIALIZED (
  SELECT * FROM jsonb_to_record($1::jsonb) AS r(
    id text, metadata jsonb, removed jsonb, new_user_agent boolean, fingerprint_id text, ip inet, user_agent jsonb,
    expires_at timestamptz, lifetime_ms float8, token_hash text, type text, payload jsonb)
), locked AS MATERIALIZED (
  SELECT s.id, s.state, s.metadata, s.expires_at, s.issuer, s.resource_owner, s.user_id, s.born FROM sessions s JOIN asked a ON a.id = s.id
  WHERE s.issuer = ANY($2::text[])
  FOR NO KEY UPDATE OF s
), clocked AS MATERIALIZED (
  SELECT l.*, date_trunc('milliseconds', clock_timestamp()) AS at,
         cutoff_rule_of(l.issuer, l.resource_owner, l.user_id, l.id, l.born) IS NOT NULL AS killed
  FROM locked l
), wanted AS MATERIALIZED (
  SELECT c.id, c.state, c.killed, c.at, c.expires_at AS ended,
         (c.metadata || coalesce(a.metadata, '{}')) - ARRAY(SELECT jsonb_array_elements_text(a.removed)) AS metadata,
         coalesce(a.expires_at, c.at + a.lifetime_ms * interval '1 millisecond') AS ends
  FROM clocked c CROSS JOIN asked a
), judged AS MATERIALIZED (
  SELECT w.*, CASE
      WHEN w.state = 'terminated' THEN 'session_terminated'
      WHEN w.killed THEN 'born_under_rule'
      WHEN w.ended <= w.at THEN 'session_expired'
      WHEN (SELECT count(*) > ${metadataBounds.keys} OR sum(octet_length(key) + octet_length(value)) > ${metadataBounds.bytes}
            FROM jsonb_each_text(w.metadata)) THEN 'metadata_too_large'
      ELSE ${expiryRefusal({ ends: 'w.ends', at: 'w.at', maxSeconds: '$3::float8' })}
    END AS refusal
  FROM wanted w
), changed AS (
  UPDATE sessions s
  SET token_hash = decode(a.token_hash, 'hex'), metadata = j.metadata, expires_at = coalesce(j.ends, s.expires_at),
      fingerprint_id = CASE WHEN a.new_user_agent THEN a.fingerprint_id ELSE s.fingerprint_id END,
      ip = CASE WHEN a.new_user_agent THEN a.ip ELSE s.ip END,
      user_agent = CASE WHEN a.new_user_agent THEN a.user_agent ELSE s.user_agent END,
      sequence = s.sequence + 1, change_date = greatest(j.at, s.change_date)
  FROM judged j CROSS JOIN asked a WHERE s.id = j.id AND j.refusal IS NULL
  RETURNING s.id, s.sequence, s.change_date, s.resource_owner
), told AS (
  INSERT INTO session_events (session_id, sequence, type, payload, actor_issuer, actor_subject, resource_owner, created_at)
  SELECT c.id, c.sequence, a.type, a.payload, $4, $5, c.resource_owner, c.change_date FROM changed c CROSS JOIN asked a
)
SELECT j.refusal, c.sequence::text AS sequence, ${wireTime('c.change_date')} AS change_date, c.resource_owner
FROM judged j LEFT JOIN changed c ON c.id = j.id`

interface UpdateRow {
  readonly refusal: keyof typeof refusals | null
  readonly sequence: string
  readonly change_date: string
  readonly resource_owner: string
}

const refusals = {
  session_terminated: { kind: 'session_terminated' },
  born_under_rule: { kind: 'session_terminated', says: CUTOFF_SAYS },
  session_expired: { kind: 'session_expired' },
  metadata_too_large: {
    kind: 'invalid_argument',
    says: `metadata would exceed ${metadataBounds.keys} keys or ${metadataBounds.bytes} bytes`,
  },
  expiry_past: { kind: 'invalid_argument', says: expirySays.expiry_past },
  expiry_too_late: { kind: 'invalid_argument', says: expirySays.expiry_too_late },
} as const satisfies Record<string, { kind: ErrorName; says?: string }>

const rowOf = ({ id, metadata, userAgent, expiry, tokenHash }: SessionChange) => {
  const changed = Object.entries({ metadata, userAgent, expirationDate: expiry }).flatMap(([name, to]) => (to === null ? [] : [name]))
  const entries = Object.entries(metadata ?? {})
  return {
    id,
    metadata: Object.fromEntries(entries.filter(([, value]) => value !== '')),
    removed: entries.filter(([, value]) => value === '').map(([key]) => key),
    new_user_agent: userAgent !== null,
    fingerprint_id: userAgent?.fingerprintId,
    ip: userAgent?.ip,
    user_agent: userAgent && { description: userAgent.description },
    ...expiryColumns(expiry),
    token_hash: hex(tokenHash),
    type: changed.length > 0 ? 'session.updated' : 'session.token.rotated',
    payload: changed.length > 0 ? { changed } : {},
  }
}

/**
 * Makes the update of one session: `session.updated`, or `session.token.rotated` where nothing is named. Safe to
 * repeat; each call is a new token.
 *
 * Throws session_not_found (also for an issuer the writer does not speak for), session_terminated, session_expired,
 * and invalid_argument for an expiry that is past or too late and for metadata that would grow too large.
 */
export const createUpdate =
  ({ db, maxLifetimeSeconds }: { db: Database; maxLifetimeSeconds: number }) =>
  (writer: Writer, change: SessionChange): Promise<Details> =>
    orAskAgain(async () => {
      const { actor, issuers } = writer
      const [row] = await db.$queryRawUnsafe<UpdateRow[]>(
        UPDATE, JSON.stringify(rowOf(change)), issuers, maxLifetimeSeconds, actor.issuer, actor.subject,
      )
      if (row === undefined) throw new CurfewError('session_not_found')
      if (row.refusal !== null) {
        const { kind, ...options } = refusals[row.refusal]
        throw new CurfewError(kind, options)
      }
      return { sequence: row.sequence, changeDate: row.change_date, resourceOwner: row.resource_owner }
    })
