/** One entry of `ISSUERS`, prepared once for the questions that each token asks of it. */
import type { IssuerEntry } from '../config.ts'
import { permissions } from '../model.ts'
import type { Permission } from '../model.ts'

export interface TrustedIssuer {
  readonly entry: IssuerEntry
  readonly audiences: ReadonlySet<string>
  readonly algorithms: readonly string[]
  readonly tokenTypes: ReadonlySet<string>
  readonly sessionIssuers: readonly string[]
  /** What the operator says that a role may. A Map, so that no role name is special. */
  readonly roles: ReadonlyMap<string, readonly Permission[]>
  /** The only organizations that its tokens can name; null: any. */
  readonly organizations: ReadonlySet<string> | null
  /** False where its JWTs too must be introspected: it has introspection and no JWKS of its own. */
  readonly hasKeys: boolean
}

/** A media type without `application/` and in lower case, as `typ` is compared (RFC 7515 §4.1.9). */
export const tokenType = (typ: string): string => {
  const lower = typ.toLowerCase()
  const short = lower.startsWith('application/') ? lower.slice('application/'.length) : lower
  return short.includes('/') ? lower : short
}

const known: ReadonlySet<string> = new Set(permissions)
export const isPermission = (word: string): word is Permission => known.has(word)

export const createTrustedIssuer = (entry: IssuerEntry): TrustedIssuer => ({
  entry,
  audiences: new Set(typeof entry.audience === 'string' ? [entry.audience] : entry.audience),
  algorithms: entry.algorithms,
  tokenTypes: new Set(entry.tokenTypes.map(tokenType)),
  sessionIssuers: Object.freeze([...(entry.sessionIssuers ?? [entry.issuer])]),
  roles: new Map(Object.entries(entry.roles)),
  organizations: entry.organizations === undefined ? null : new Set(entry.organizations),
  hasKeys: entry.jwksUri !== undefined || entry.introspection === undefined,
})
