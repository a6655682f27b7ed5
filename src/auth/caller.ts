/**
 * Who asks, and what they may: the one result of authentication that the rest of the service sees.
 *
 * A caller is immutable and shared by every request that shows the same token.
 */
import { CurfewError } from '../errors.ts'
import type { Actor, Permission } from '../model.ts'

/** Where a permission holds: everywhere, or in these organizations (never an empty set). */
export type Reach = 'instance' | ReadonlySet<string>

export interface Caller {
  /** The token's `iss` and `sub`. */
  readonly actor: Actor
  /** The session that the token was issued from, if the token says. */
  readonly sid: string | null
  /** `auth_time`, else `iat`, else 0 (older than every cutoff), in milliseconds since 1970. */
  readonly bornMs: number
  /** The organizations that its organization claim names; what cutoff rules for an organization ask. */
  readonly organizations: readonly string[]
  /** The issuers whose sessions its issuer speaks for. */
  readonly sessionIssuers: readonly string[]
  /** Permissions that hold nowhere are absent. */
  readonly grants: ReadonlyMap<Permission, Reach>
}

/** Where the caller holds a permission; null: nowhere. */
export const reachOf = (caller: Caller, permission: Permission): Reach | null => caller.grants.get(permission) ?? null

/**
 * Where the caller holds a permission, which must be somewhere.
 *
 * @throws CurfewError permission_denied.
 */
export const requirePermission = (caller: Caller, permission: Permission): Reach => {
  const reach = reachOf(caller, permission)
  if (reach === null) throw new CurfewError('permission_denied')
  return reach
}

/**
 * Passes only a caller that holds the permission for the whole instance.
 *
 * @throws CurfewError permission_denied.
 */
export const requireInstance = (caller: Caller, permission: Permission): void => {
  if (reachOf(caller, permission) !== 'instance') throw new CurfewError('permission_denied')
}
