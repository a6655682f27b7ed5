/** What of the receivers a caller may see or change: where its permission holds, and the issuers that it speaks for. */
import { requirePermission } from '../auth/caller.ts'
import type { Permission } from '../model.ts'
import type { Within } from '../store/receivers.ts'
import type { Caller } from './caller.ts'

/** @throws CurfewError permission_denied where the permission holds nowhere. */
export const within = (caller: Caller, permission: Permission): Within => ({
  reach: requirePermission(caller, permission),
  issuers: caller.sessionIssuers,
})
