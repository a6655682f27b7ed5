/**
 * Pausing, resuming and cancelling, in one transaction with the event that says who did it.
 */
import { CurfewError } from '../errors.ts'
import type { RevocationScope } from '../model.ts'
import type { Database } from '../store/postgres.ts'
import { awaitChunks } from '../store/revocation-slices.ts'
import { holdRevocation, writeSteered } from '../store/revocation-steering.ts'
import { readRevocation } from '../store/revocations.ts'
import type { Revocation, Viewer } from '../store/revocations.ts'
import { steer } from './revocation.ts'
import type { RevocationPart, SteeringVerb } from './revocation.ts'

export interface SteeringCaller {
  /** What the caller sees. */
  readonly viewer: Viewer
  /** Where it may write; null: nowhere. */
  readonly writes: RevocationScope['reach'] | null
}

export interface SteerAsked extends SteeringCaller {
  readonly id: string
  readonly verb: SteeringVerb
  /** Null: both parts. */
  readonly only: RevocationPart | null
}

export type SteerRevocation = (asked: SteerAsked) => Promise<Revocation>

/** Whoever steers must reach all that the revocation does, also where it is its own and its permissions have changed. */
export const maySteer = ({ viewer, writes }: SteeringCaller, held: { issuers: readonly string[]; reach: RevocationScope['reach'] }): boolean => {
  if (writes === null || !held.issuers.every((issuer) => viewer.issuers.includes(issuer))) return false
  if (writes === 'instance') return true
  return held.reach !== 'instance' && [...held.reach].every((organization) => writes.has(organization))
}

/**
 * Repeat-safe.
 *
 * @throws CurfewError revocation_not_found also for one that the caller does not see, permission_denied,
 * revocation_not_steerable.
 */
export const createSteerRevocation = (deps: {
  db: Database
  /** Tells the engine and the router that there may be work; best effort, never throws. */
  wake: (revocationId: string) => void
}): SteerRevocation => async (asked) => {
  const { id, verb, only, viewer } = asked
  await deps.db.$transaction(async (tx) => {
    const held = await holdRevocation(tx, { id, viewer })
    if (held === null) throw new CurfewError('revocation_not_found')
    if (!maySteer(asked, held)) throw new CurfewError('permission_denied')
    const steered = steer(held, verb, only)
    if (steered.events.length > 0) await writeSteered(tx, { id, actor: viewer.actor, ...steered })
    // Answered is paused: nothing is ended after it.
    if (steered.state !== held.state) await awaitChunks(tx, id)
  })
  deps.wake(id)
  const after = await readRevocation(deps.db, id)
  if (after === null) throw new CurfewError('revocation_not_found')
  return after
}
