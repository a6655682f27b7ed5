/** A token that one of our issuers vouches for, and the two things that are kept of one: a caller, or what it says. */
import type { Caller } from './caller.ts'
import type { CheckedClaims } from './claims.ts'
import { readGrants, readOrganizations } from './grants.ts'
import type { TrustedIssuer } from './trusted-issuer.ts'

export interface VerifiedToken {
  readonly issuer: TrustedIssuer
  readonly claims: Record<string, unknown>
  readonly checked: CheckedClaims
}

export const callerOf = ({ issuer, claims, checked }: VerifiedToken): Caller => ({
  actor: { issuer: issuer.entry.issuer, subject: checked.subject },
  sid: checked.sid,
  bornMs: checked.bornMs,
  organizations: readOrganizations(claims, issuer),
  sessionIssuers: issuer.sessionIssuers,
  grants: readGrants(claims, issuer),
})
