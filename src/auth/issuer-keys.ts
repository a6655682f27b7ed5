/**
 * The keys of one issuer: fetched, kept, refreshed, and kept on to while its endpoint is away.
 *
 * Guarantees: one fetch at a time; unknown kids cause at most one fetch per 30 s however many come; a known key
 * never waits for an unknown one; keys outlive an outage by up to a day; a refused set leaves the old one in force.
 * Failure: with no keys at all, `issuer_unavailable`, because such a token is neither good nor bad.
 */
import { errors } from 'jose'
import { CurfewError } from '../errors.ts'
import type { IssuerEntry } from '../config.ts'
import type { Log } from '../telemetry.ts'
import type { FetchJson } from './fetch-json.ts'
import { readKeySet } from './key-set.ts'
import type { KeyLookup } from './key-set.ts'

interface IssuerKeysDeps {
  readonly entry: Pick<IssuerEntry, 'issuer' | 'jwksUri'>
  readonly fetchJson: FetchJson
  /** Milliseconds that never jump; only differences count. */
  readonly elapsed: () => number
  readonly log: Pick<Log, 'info' | 'warn'>
}

/** A new key is published before it signs; a storm of made-up kids must not become the issuer's. */
const UNKNOWN_KID_INTERVAL_MS = 30_000
/** How long a withdrawn key is believed on; the usual cache time of JWKS. */
const REFRESH_AFTER_MS = 600_000
/** Older than this and not for want of trying (an idle process): the request waits for the refresh. */
const WAIT_AFTER_MS = 3_600_000
/** A day without the issuer is no outage any more. */
const DROP_AFTER_MS = 86_400_000
/** After failures: 1 s, doubling to 30 s. */
const RETRY_BASE_MS = 1_000
const RETRY_MAX_MS = 30_000

const isAllowedUri = (uri: unknown, issuer: string): uri is string => {
  if (typeof uri !== 'string' || !URL.canParse(uri)) return false
  const { protocol } = new URL(uri)
  return protocol === 'https:' || (protocol === 'http:' && issuer.startsWith('http:'))
}

/** OpenID Connect Discovery 1.0 §4: the document must be the issuer's own. */
const discover = async (issuer: string, fetchJson: FetchJson): Promise<string> => {
  const document = await fetchJson(`${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`)
  const fields = typeof document === 'object' && document !== null ? (document as Record<string, unknown>) : {}
  if (fields['issuer'] !== issuer) throw new Error('discovery names another issuer')
  const uri = fields['jwks_uri']
  if (!isAllowedUri(uri, issuer)) throw new Error('discovery names no usable jwks_uri')
  return uri
}

/** A lookup for jose that never fetches more than it may. Lookups reject as jose's do, or with issuer_unavailable. */
export const createIssuerKeys = ({ entry, fetchJson, elapsed, log }: IssuerKeysDeps): KeyLookup => {
  let keys: KeyLookup | null = null
  let fetchedAtMs = 0
  let failures = 0
  let retryAtMs = 0
  let unknownKidAtMs = Number.NEGATIVE_INFINITY
  let inFlight: Promise<void> | null = null

  const fetchKeys = async (): Promise<void> => {
    try {
      const uri = entry.jwksUri ?? (await discover(entry.issuer, fetchJson))
      keys = readKeySet(await fetchJson(uri))
      fetchedAtMs = elapsed()
      if (failures > 0) log.info({ event: 'auth.keys.back', issuer: entry.issuer }, "The issuer's keys can be read again")
      failures = 0
    } catch (error) {
      // Not passed on: what this means depends on the token, and on whether old keys are held.
      retryAtMs = elapsed() + Math.min(RETRY_MAX_MS, RETRY_BASE_MS * 2 ** Math.min(failures, 10))
      failures += 1
      const fields = { event: 'auth.keys.unreadable', issuer: entry.issuer, failures, held: keys !== null, err: error }
      log.warn(fields, "The issuer's keys cannot be read; those held stay in force")
    }
  }

  const refresh = (): Promise<void> => {
    inFlight ??= fetchKeys().finally(() => {
      inFlight = null
    })
    return inFlight
  }

  const currentKeys = async (): Promise<KeyLookup> => {
    const ageMs = elapsed() - fetchedAtMs
    if (keys !== null && ageMs > DROP_AFTER_MS) keys = null
    const mayTry = failures === 0 || elapsed() >= retryAtMs
    const mustWait = keys === null || (ageMs > WAIT_AFTER_MS && failures === 0)
    if ((keys === null || ageMs > REFRESH_AFTER_MS) && (mayTry || inFlight !== null)) {
      const done = refresh()
      if (mustWait) await done
    }
    if (keys === null) throw new CurfewError('issuer_unavailable')
    return keys
  }

  const refreshForUnknownKid = async (): Promise<void> => {
    if (inFlight !== null) return inFlight
    if (elapsed() - unknownKidAtMs < UNKNOWN_KID_INTERVAL_MS) return undefined
    unknownKidAtMs = elapsed()
    return refresh()
  }

  return async (header, token) => {
    const held = await currentKeys()
    try {
      return await held(header, token)
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey)) throw error
    }
    await refreshForUnknownKid()
    return (await currentKeys())(header, token)
  }
}
