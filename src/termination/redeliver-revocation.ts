/**
 * A revocation's dead letters, made due again by someone who may steer it. That is told in its history.
 */
import { CurfewError } from '../errors.ts'
import { redeliverOfRevocation } from '../store/redelivery.ts'
import type { DeadState, Redelivered } from '../store/redelivery.ts'
import { writeRevocationEvent } from '../store/revocation-steering.ts'
import { readVisibleRevocation } from '../store/revocations.ts'
import type { Database } from '../store/postgres.ts'
import { maySteer } from './steer-revocation.ts'
import type { SteeringCaller } from './steer-revocation.ts'

export type RedeliverRevocation = (asked: SteeringCaller & { readonly id: string; readonly state: DeadState }) => Promise<Redelivered>

/**
 * Repeat-safe: what is due already is no dead letter.
 *
 * @throws CurfewError revocation_not_found also for one that the caller does not see, permission_denied, overloaded.
 */
export const createRedeliverRevocation = (deps: {
  db: Database
  horizonSeconds: number
  /** Tells that a receiver has something due; best effort, never throws. */
  wakeReceiver: (receiverId: string) => void
}): RedeliverRevocation => async (asked) => {
  const { id, viewer, state } = asked
  const { db, horizonSeconds, wakeReceiver } = deps
  const revocation = await readVisibleRevocation(db, { id, viewer })
  if (revocation === null) throw new CurfewError('revocation_not_found')
  if (!maySteer(asked, revocation)) throw new CurfewError('permission_denied')
  const wake = (receiverIds: readonly string[]) => receiverIds.forEach((receiverId) => wakeReceiver(receiverId))
  const redelivered = await redeliverOfRevocation(db, { revocationId: id, state, horizonSeconds, wake })
  if (redelivered.redelivered > 0) await writeRevocationEvent(db, { id, actor: viewer.actor, type: 'notifications.redelivered' })
  return redelivered
}
