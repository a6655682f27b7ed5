/**
 * Whom we believe: the entries of `ISSUERS`, prepared once, with the keys of each. Shared by all who verify tokens, so
 * that an issuer's keys are fetched and kept once a process.
 */
import type { IssuerEntry } from '../config.ts'
import type { Log } from '../telemetry.ts'
import { createFetchJson } from './fetch-json.ts'
import type { Fetch, FetchJson } from './fetch-json.ts'
import { createIssuerKeys } from './issuer-keys.ts'
import type { KeyLookup } from './key-set.ts'
import { createTrustedIssuer } from './trusted-issuer.ts'
import type { TrustedIssuer } from './trusted-issuer.ts'

export interface Trust {
  readonly issuers: readonly TrustedIssuer[]
  /** By `iss`; absent where the issuer's tokens must be introspected. */
  readonly keys: ReadonlyMap<string, KeyLookup>
  readonly fetchJson: FetchJson
}

/** Fetches nothing yet, and holds no timers. @param elapsed milliseconds that never jump. */
export const createTrust = (deps: {
  readonly issuers: readonly IssuerEntry[]
  readonly log: Pick<Log, 'info' | 'warn'>
  readonly elapsed?: () => number
  readonly fetch?: Fetch
}): Trust => {
  const { log, elapsed = () => performance.now(), fetch = (url, init) => globalThis.fetch(url, init) } = deps
  const fetchJson = createFetchJson(fetch)
  const issuers = deps.issuers.map(createTrustedIssuer)
  const keys = issuers
    .filter(({ hasKeys }) => hasKeys)
    .map(({ entry }) => [entry.issuer, createIssuerKeys({ entry, fetchJson, elapsed, log })] as const)
  return { issuers, keys: new Map(keys), fetchJson }
}
