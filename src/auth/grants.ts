/**
 * What a token's claims permit, within what its entry allows.
 *
 * Only two things grant: a word of the seven in a claim that the entry lists, and a role that the entry maps.
 * Where it holds: in the organizations that the token names, limited to the entry's; for the whole instance only
 * if the entry says so and the token names no organization. A claim of the wrong type grants nothing, and one
 * that names organizations in a way we cannot read still keeps the token from the instance.
 */
import type { Permission } from '../model.ts'
import type { Reach } from './caller.ts'
import { isPermission } from './trusted-issuer.ts'
import type { TrustedIssuer } from './trusted-issuer.ts'

type Claims = Record<string, unknown>

const claim = (claims: Claims, name: string): unknown => (Object.hasOwn(claims, name) ? claims[name] : undefined)

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const strings = (value: unknown): string[] =>
  Array.isArray(value) ? value.filter((one): one is string => typeof one === 'string' && one !== '') : []

/** An array of words, or words separated by spaces as in `scope` (RFC 8693 §4.2). */
const words = (value: unknown): string[] =>
  typeof value === 'string' ? value.split(' ').filter((word) => word !== '') : strings(value)

const namesOf = (value: unknown): string[] => (typeof value === 'string' && value !== '' ? [value] : strings(value))

interface Grant {
  readonly permission: Permission
  /** Null: wherever the token as a whole holds. */
  readonly organizations: readonly string[] | null
}

/** Roles as names, or as ZITADEL writes them: `{role: {organization: its domain}}`. */
const grantsOfRoles = (value: unknown, roles: TrustedIssuer['roles']): Grant[] => {
  const held: [string, readonly string[] | null][] = isObject(value)
    ? Object.entries(value).map(([role, organizations]) => [role, isObject(organizations) ? Object.keys(organizations) : []])
    : namesOf(value).map((role) => [role, null])
  return held.flatMap(([role, organizations]) =>
    (roles.get(role) ?? []).filter(isPermission).map((permission) => ({ permission, organizations })),
  )
}

/** The organizations that a verified token names in the claim that the entry lists, whatever it may do in them. */
export const readOrganizations = (claims: Claims, { entry }: TrustedIssuer): readonly string[] =>
  entry.organizationClaim === undefined ? [] : namesOf(claim(claims, entry.organizationClaim))

/** Reads a verified token's permissions. The map holds no empty sets. */
export const readGrants = (claims: Claims, issuer: TrustedIssuer): ReadonlyMap<Permission, Reach> => {
  const { entry } = issuer
  const organizationClaim = entry.organizationClaim === undefined ? undefined : claim(claims, entry.organizationClaim)
  const roleClaim = entry.roleClaim === undefined ? undefined : claim(claims, entry.roleClaim)
  const named = readOrganizations(claims, issuer)
  const namesOrganizations = organizationClaim !== undefined || isObject(roleClaim)
  const instance = entry.instance && !namesOrganizations

  const granted: Grant[] = [
    ...entry.permissionClaims
      .flatMap((name) => words(claim(claims, name)))
      .filter(isPermission)
      .map((permission) => ({ permission, organizations: null })),
    ...grantsOfRoles(roleClaim, issuer.roles),
  ]
  const grants = new Map<Permission, Reach>()
  for (const { permission, organizations } of granted) {
    if (instance) {
      grants.set(permission, 'instance')
      continue
    }
    const within = (organizations ?? named).filter(
      (organization) => organization !== '' && (issuer.organizations?.has(organization) ?? true),
    )
    if (within.length === 0) continue
    const before = grants.get(permission)
    grants.set(permission, new Set([...(before instanceof Set ? (before as ReadonlySet<string>) : []), ...within]))
  }
  return grants
}
