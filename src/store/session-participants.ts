/**
 * Adds a participant to a session, under the session's row lock: so it comes either before the termination, which
 * then tells it, or after, and then its delivery is planned here, in the transaction that stores it (G5).
 *
 * Lock order: the session, its commit, then what `planLateParticipant` locks (receivers, deliveries).
 */
import { CurfewError } from '../errors.ts'
import type { Details, EndedSession, SessionState } from '../model.ts'
import { planLateParticipant } from './deliveries.ts'
import type { Statements } from './deliveries.ts'
import type { Database } from './postgres.ts'
import { orAskAgain } from './session-lock.ts'
import type { Writer } from './session-register.ts'
import { wireTime } from './wire-time.ts'

export interface ParticipantAsked {
  readonly sessionId: string
  readonly clientId: string
  /** Null: the session's id. */
  readonly sid: string | null
  /** Null: the session's user. */
  readonly sub: string | null
}

/**
 * `terminated`: stored, and the receivers to wake because they are to be told; where its sid is not the session's id, the
 * local channels are to be told of it too (`late`), and those who follow over HTTP will be. `killed` by a cutoff rule:
 * stored, so that it is told when the session is ended.
 */
export type ParticipantAnswer =
  | { readonly outcome: 'present'; readonly details: Details }
  | { readonly outcome: 'killed' }
  | { readonly outcome: 'terminated'; readonly wake: readonly string[]; readonly late: LateSid | null }

/** A session that a commit has ended, with the one sid that is new. */
export interface LateSid {
  readonly commitId: string
  readonly session: EndedSession
  /** The telling that this sid makes whole; null: there is more to be told of the commit than this sid, and upkeep does. */
  readonly telling: number | null
}

export interface ParticipantDeps {
  readonly db: Database
  /** How long a token can outlive its session; a late participant is told for as long. */
  readonly maxTokenLifetimeSeconds: number
}

/** One session's relying parties. A termination tells each of them, so their number must end somewhere. */
const MAX_PARTICIPANTS = 1_000

const LOCK = `
SELECT s.state::text AS state, s.user_id FROM sessions s WHERE s.id = $1 AND s.issuer = ANY($2::text[])
FOR NO KEY UPDATE`

// A statement of its own, after the lock: it must see the participants that others added while this one waited.
const ADD = `
WITH room AS MATERIALIZED (
  SELECT count(*) < ${MAX_PARTICIPANTS} OR coalesce(bool_or(client_id = $2 AND sid = $3), false) AS free
  FROM session_clients WHERE session_id = $1
), put AS (
  INSERT INTO session_clients AS c (session_id, client_id, sid, sub)
  SELECT $1, $2, $3, $4 FROM room WHERE free
  ON CONFLICT (session_id, client_id, sid) DO UPDATE SET sub = excluded.sub WHERE c.sub <> excluded.sub
  RETURNING session_id
), changed AS (
  UPDATE sessions s
  SET sequence = s.sequence + 1, change_date = greatest(date_trunc('milliseconds', clock_timestamp()), s.change_date)
  FROM put WHERE s.id = put.session_id AND s.state = 'active'
  RETURNING s.id, s.sequence, s.change_date, s.resource_owner
), told AS (
  INSERT INTO session_events (session_id, sequence, type, payload, actor_issuer, actor_subject, resource_owner, created_at)
  SELECT c.id, c.sequence, 'session.client.added', jsonb_build_object('clientId', $2::text, 'sid', $3::text, 'sub', $4::text),
         $5, $6, c.resource_owner, c.change_date
  FROM changed c
)
SELECT room.free, EXISTS (SELECT FROM put) AS added, coalesce(c.sequence, s.sequence)::text AS sequence,
       ${wireTime('coalesce(c.change_date, s.change_date)')} AS change_date, s.resource_owner,
       cutoff_rule_of(s.issuer, s.resource_owner, s.user_id, s.id, s.born) IS NOT NULL AS killed
FROM room CROSS JOIN sessions s LEFT JOIN changed c ON c.id = s.id WHERE s.id = $1`

// The commit comes on the stream once more, behind those who have read it already, and counts as unenforced until the
// local channels were told: whoever is to tell them may be killed.
const TELL_LATE = `
WITH ended AS MATERIALIZED (
  SELECT e.commit_id, s.issuer, floor(extract(epoch FROM s.expires_at) * 1000)::float8 AS expires_ms
  FROM session_events e JOIN sessions s ON s.id = e.session_id
  WHERE e.session_id = $1 AND e.type = 'session.terminated' AND e.commit_id IS NOT NULL
), held AS MATERIALIZED (
  SELECT id, enforced_at IS NOT NULL AS enforced FROM commits WHERE id = (SELECT commit_id FROM ended) FOR NO KEY UPDATE
), again AS (
  UPDATE commits c SET enforced_at = NULL, streamed_at = NULL, enforced_again_at = NULL, tellings = c.tellings + 1, retold_at = clock_timestamp()
  FROM held h WHERE c.id = h.id AND $2
  RETURNING c.id, CASE WHEN h.enforced THEN c.tellings END AS telling
), on_stream AS (
  INSERT INTO stream_entries (commit_id) SELECT id FROM again
)
SELECT e.commit_id::text AS "commitId", e.issuer, e.expires_ms AS "expiresAtMs", a.telling FROM ended e LEFT JOIN again a ON a.id = e.commit_id`

/** @param isNew false: it has been told before, and is told again to the local channels alone. */
const tellLate = async (tx: Statements, { sessionId, sid, isNew }: { sessionId: string; sid: string; isNew: boolean }): Promise<LateSid | null> => {
  if (sid === sessionId) return null
  const [row] = await tx.$queryRawUnsafe<{ commitId: string; issuer: string; expiresAtMs: number; telling: number | null }[]>(TELL_LATE, sessionId, isNew)
  if (row === undefined) return null
  const { commitId, issuer, expiresAtMs, telling } = row
  return { commitId, telling, session: { sessionId, issuer, expiresAtMs, cacheKeys: [], sids: [sid] } }
}

interface LockedRow {
  readonly state: SessionState
  readonly user_id: string
}

interface AddedRow {
  readonly free: boolean
  readonly added: boolean
  readonly killed: boolean
  readonly sequence: string
  readonly change_date: string
  readonly resource_owner: string
}

/**
 * Makes the adding of one participant. The same one again changes nothing; the same client and sid with another
 * `sub` is corrected, with an event. On a terminated session there is no event: nothing may follow the termination.
 * Safe to repeat. May wait for a termination in progress, at most the connection's lock_timeout.
 *
 * Throws session_not_found (also for an issuer the writer does not speak for), overloaded where the session's row
 * stays locked, and invalid_argument for one participant too many.
 */
export const createAddParticipant =
  ({ db, maxTokenLifetimeSeconds }: ParticipantDeps) =>
  (writer: Writer, asked: ParticipantAsked): Promise<ParticipantAnswer> =>
    orAskAgain(() =>
      db.$transaction(async (tx): Promise<ParticipantAnswer> => {
        const { sessionId, clientId } = asked
        const [locked] = await tx.$queryRawUnsafe<LockedRow[]>(LOCK, sessionId, writer.issuers)
        if (locked === undefined) throw new CurfewError('session_not_found')
        const participant = { clientId, sid: asked.sid ?? sessionId, sub: asked.sub ?? locked.user_id }
        const { issuer, subject } = writer.actor
        const [row] = await tx.$queryRawUnsafe<AddedRow[]>(ADD, sessionId, clientId, participant.sid, participant.sub, issuer, subject)
        if (row === undefined) throw new Error('The locked session was not there')
        if (!row.free) throw new CurfewError('invalid_argument', { says: `A session has at most ${MAX_PARTICIPANTS} participants` })
        if (locked.state === 'terminated') {
          const late = await tellLate(tx, { sessionId, sid: participant.sid, isNew: row.added })
          return { outcome: 'terminated', wake: await planLateParticipant(tx, { sessionId, participant, maxTokenLifetimeSeconds }), late }
        }
        if (row.killed) return { outcome: 'killed' }
        return {
          outcome: 'present',
          details: { sequence: row.sequence, changeDate: row.change_date, resourceOwner: row.resource_owner },
        }
      }),
    )
