/** Which revocations a caller sees (DESIGN §7): its own, and those whose reach and issuers lie within where it may read them. */
import { requirePermission, reachOf } from '../auth/caller.ts'
import { CurfewError } from '../errors.ts'
import type { Viewer } from '../store/revocations.ts'
import type { Asker } from '../termination/revocation-asked.ts'
import type { Caller } from './caller.ts'

export const viewerOf = (caller: Caller): Viewer => ({
  actor: caller.actor,
  issuers: caller.sessionIssuers,
  reach: reachOf(caller, 'revocation.read'),
})

/** @throws CurfewError permission_denied where `revocation.write` holds nowhere. */
export const askerOf = (caller: Caller): Asker => ({
  actor: caller.actor,
  issuers: caller.sessionIssuers,
  reach: requirePermission(caller, 'revocation.write'),
})

/** What is answered for a revocation that is not there or not seen: who may read none learns that, and no more. */
export const notSeen = (caller: Caller): CurfewError =>
  new CurfewError(reachOf(caller, 'revocation.read') === null ? 'permission_denied' : 'revocation_not_found')

/** As ids of revocations are written; whatever else is asked for is not there. */
export const isRevocationId = (text: string): boolean => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text)
