/**
 * One log-out that does not wait for its commit: accepted as a revocation of this one session.
 *
 * Whoever asks was permitted to end it now. A session that has ended already is told at once, and what is unknown is
 * refused as ever: neither becomes a revocation. Nor does anything while very many revocations are under way: then the
 * log-out is to be made at once, which is the sooner.
 */
import { CurfewError } from '../errors.ts'
import type { Details, RevocationScope, TerminateCommand } from '../model.ts'
import { changedNothing } from '../store/postgres-failures.ts'
import type { Database } from '../store/postgres.ts'
import { insertRevocation, readRevocation } from '../store/revocations.ts'
import type { Revocation } from '../store/revocations.ts'
import { readEndable } from '../store/session-endable.ts'
import { uuidV7 } from './uuid-v7.ts'

export type AcceptedLogOut = { readonly revocation: Revocation } | { readonly details: Details }

/** Null: too many are under way; end it now. @param reach where the caller may end sessions, or null: it may end this one for another reason. */
export type AcceptLogOut = (command: TerminateCommand, reach: RevocationScope['reach'] | null) => Promise<AcceptedLogOut | null>

/** @throws CurfewError session_not_found. */
export const createAcceptLogOut = (deps: {
  db: Database
  /** Tells the engine that there is work; best effort, never throws. */
  wake: (revocationId: string) => void
  now: () => number
}): AcceptLogOut => async ({ sessionId, issuers, actor, mode, reason }, reach) => {
  const { db } = deps
  const session = await readEndable(db, { sessionId, issuers })
  if (session === null) throw new CurfewError('session_not_found')
  if (session.terminated !== null) return { details: session.terminated }
  if (session.crowded) return null
  const id = uuidV7(deps.now())
  const inserted = insertRevocation(db, {
    id,
    mode,
    reason,
    ticket: null,
    actor,
    issuers: [session.issuer],
    // Who holds a permission in organizations shares it with others who do; else it is the caller's own affair.
    reach: reach !== null && reach !== 'instance' && reach.has(session.resourceOwner) ? reach : 'instance',
    filter: {
      resourceOwners: [], userIds: [], sessionIds: [sessionId], clientIds: [], fingerprintIds: [], ips: [],
      bornBefore: null, bornAfter: null, includeExpired: true, all: false,
    },
    exclude: { userIds: [], sessionIds: [] },
    containment: 'rows',
    deliveriesPerSecond: null,
    expected: 1,
    expectedExact: true,
    // Registrars have clocks of their own, and this session is meant whenever it says it was born.
    reachesBorn: session.born,
  })
  await inserted.catch(async (error: unknown) => {
    // Of unknown outcome: what is there was committed, and its id is nobody else's.
    if (changedNothing(error) || (await readRevocation(db, id)) === null) throw error
  })
  deps.wake(id)
  const revocation = await readRevocation(db, id)
  if (revocation === null) throw new CurfewError('unavailable')
  return { revocation }
}
