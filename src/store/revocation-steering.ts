/**
 * Steering a revocation: its row is held while it is decided what becomes of it, so that whoever steers at the same
 * time comes after, and chunks, which share it, see the state before or after, never between.
 */
import type { Actor, Containment, NotificationState, RevocationScope, RevocationState } from '../model.ts'
import type { Database } from './postgres.ts'
import { VISIBLE, revocationOf, viewerParameters } from './revocations.ts'
import type { RevocationTransaction, Viewer } from './revocations.ts'

export interface HeldRevocation {
  readonly state: RevocationState
  readonly notifications: NotificationState
  readonly containment: Containment
  readonly issuers: readonly string[]
  readonly reach: RevocationScope['reach']
}

/** Holds a revocation that the viewer sees, to the end of the transaction; null where there is none. */
export const holdRevocation = async (
  tx: RevocationTransaction,
  { id, viewer }: { id: string; viewer: Viewer },
): Promise<HeldRevocation | null> => {
  const [row] = await tx.$queryRawUnsafe<(Omit<HeldRevocation, 'reach'> & { instance: boolean; organizations: string[] })[]>(
    `SELECT r.state::text AS state, r.notifications::text AS notifications, r.containment, r.issuers, r.instance, r.organizations
     FROM revocations r WHERE r.id = $6::text::uuid AND ${VISIBLE} FOR NO KEY UPDATE`,
    ...viewerParameters(viewer), id,
  )
  return row === undefined ? null : revocationOf(row)
}

/** Writes what becomes of a held revocation, with the events that say who did it. */
export const writeSteered = async (
  tx: RevocationTransaction,
  { id, actor, state, notifications, events }: { id: string; actor: Actor; state: RevocationState; notifications: NotificationState; events: readonly string[] },
): Promise<void> => {
  await tx.$queryRawUnsafe(
    `WITH changed AS (
       UPDATE revocations SET state = $2::text::revocation_state, notifications = $3::text::notification_state, changed_at = clock_timestamp()
       WHERE id = $1::text::uuid RETURNING id, changed_at
     ), told AS (
       INSERT INTO revocation_events (revocation_id, type, actor_issuer, actor_subject, created_at)
       SELECT c.id, e.type, $5, $6, c.changed_at FROM changed c CROSS JOIN unnest($4::text[]) WITH ORDINALITY AS e(type, n) ORDER BY e.n
     )
     SELECT id::text AS id FROM changed`,
    id, state, notifications, events, actor.issuer, actor.subject,
  )
}

/** Writes into a revocation's history that someone did something about it. */
export const writeRevocationEvent = async (db: Database, { id, actor, type }: { id: string; actor: Actor; type: string }): Promise<void> => {
  await db.$executeRawUnsafe(
    'INSERT INTO revocation_events (revocation_id, type, actor_issuer, actor_subject) VALUES ($1::text::uuid, $2, $3, $4)', id, type, actor.issuer, actor.subject,
  )
}
