/**
 * What webhooks are told, as it is read when a delivery is sent: `d` is the delivery. Both read what no longer changes, so that
 * every attempt says the same.
 */
import type { TerminationMode } from '../model.ts'
import { wireTime } from './wire-time.ts'

/** What an event `session.terminated` says beyond the names of the session. */
export interface ToldTermination {
  readonly resourceOwner: string
  readonly mode: TerminationMode
  readonly reason: string | null
  readonly sequence: string
  /** Milliseconds since 1970. */
  readonly terminatedAtMs: number
}

/** A look-up by session_events' unique key, of a handful of rows. */
export const TERMINATION = `(
  SELECT json_build_object('resourceOwner', e.resource_owner, 'mode', e.mode, 'reason', e.reason, 'sequence', e.sequence::text,
    'terminatedAtMs', floor(extract(epoch FROM e.created_at) * 1000))
  FROM session_events e WHERE e.session_id = d.session_id AND e.type = 'session.terminated' ORDER BY e.sequence DESC LIMIT 1)`

/** What an event `revocation.completed` says. Times are RFC 3339 UTC. */
export interface ToldCompletion {
  readonly id: string
  readonly mode: TerminationMode
  readonly reason: string | null
  readonly ticket: string | null
  readonly createTime: string
  readonly cutoffTime: string
  readonly committedTime: string
  /** Null where it was not known when the delivery was planned. */
  readonly enforcedTime: string | null
  /** 64-bit numbers. Null where the revocation reaches sessions of other issuers than the receiver's. */
  readonly sessions: { readonly matched: string; readonly terminated: string } | null
}

/** Of a delivery of the event `revocation.completed`; else null. The revocation is done, so its slices no longer change. */
export const COMPLETION = `CASE WHEN d.event = 'revocation.completed' THEN (
  SELECT json_build_object('id', v.id::text, 'mode', v.mode, 'reason', v.reason, 'ticket', v.ticket,
    'createTime', ${wireTime('v.created_at')}, 'cutoffTime', ${wireTime('v.cutoff_time')}, 'committedTime', ${wireTime('v.committed_at')},
    'enforcedTime', CASE WHEN v.enforced_at <= d.created_at THEN ${wireTime('v.enforced_at')} END,
    'sessions', CASE WHEN v.issuers = ARRAY[d.issuer] THEN (
      SELECT json_build_object('matched', coalesce(sum(l.matched), 0)::text, 'terminated', coalesce(sum(l.terminated), 0)::text)
      FROM revocation_slices l WHERE l.revocation_id = v.id) END)
  FROM revocations v WHERE v.id = d.revocation_id) END`
