/**
 * The fields that bodies of sessions are made of, each with its bounds. Postgres text holds neither NUL nor half of
 * a surrogate pair, so both are refused here with every other control character.
 */
import { isIP } from 'node:net'
import { z } from 'zod'
import type { UserAgent } from '../../../store/session-add.ts'
import type { Expiry } from '../../../store/session-expiry.ts'
import { metadataBounds } from '../../../store/session-update.ts'
import { SESSION_ID_RULE, isSessionId } from '../../session-id.ts'

/** A name of 1 to `max` code points without control characters. */
const name = (max: number) =>
  z.string().regex(new RegExp(`^[^\\p{Cc}\\p{Cs}]{1,${max}}$`, 'u'), `must have 1 to ${max} characters and no control characters`)

export const sessionId = z.string().refine(isSessionId, SESSION_ID_RULE)

/** OpenID Connect Core §2 lets a `sub` have 255 characters; client ids and `sid`s are given the same. */
export const subject = name(255)

export const organization = name(200)

/** No issuer of ours has a longer URL, and none has white space: lists of issuers are joined by it. */
export const issuerUrl = z.string().max(2_000).regex(/^https?:\/\/[^\s\p{Cc}\p{Cs}]+$/u, 'must be a URL without white space')

/** A cache key as Redis takes it; 512 characters are more than any session store writes. */
const cacheKey = name(512)

/** One session's keys are deleted in one command when it ends. */
const MAX_CACHE_KEYS = 32

export const cacheKeys = (prefixes: readonly string[]) =>
  z
    .array(cacheKey.refine((key) => prefixes.some((prefix) => key.startsWith(prefix)), 'does not match CACHE_KEY_PREFIXES'))
    .max(MAX_CACHE_KEYS)

/** Later years would not be written with four digits once they are in UTC. */
const MAX_INSTANT_MS = Date.UTC(9999, 11, 31)

/** RFC 3339 with seconds and an offset, kept as sent: it may be finer than a millisecond. */
export const rfc3339 = z.iso.datetime({ offset: true }).refine((text) => {
  const at = Date.parse(text)
  return at >= 0 && at < MAX_INSTANT_MS
}, 'must be RFC 3339 between 1970 and 9999')

/** An instant as it is stored: cut to milliseconds, in UTC. */
export const instant = rfc3339.transform((text) => new Date(text).toISOString())

/** When the session and the sign-in came to be. */
export const birthFields = { creationDate: instant.optional(), authTime: instant.optional() }

/** A protobuf Duration in JSON: seconds with an `s`. Less than a millisecond is no lifetime. */
const lifetime = z
  .string()
  .regex(/^\d{1,12}(\.\d{1,9})?s$/, 'must be seconds with an "s", for example "18000s"')
  .transform((text) => Math.floor(Number(text.slice(0, -1)) * 1_000))
  .refine((milliseconds) => milliseconds > 0, 'must be longer than zero')

/** `expirationDate` or `lifetime`, to be spread into a body; `expiryOf` reads them. */
export const expiryFields = { expirationDate: instant.optional(), lifetime: lifetime.optional() }

export const isOneExpiry = (body: { expirationDate?: string | undefined; lifetime?: number | undefined }): boolean =>
  body.expirationDate === undefined || body.lifetime === undefined

export const ONE_EXPIRY_RULE = { path: ['lifetime'], message: 'and expirationDate exclude each other' }

export const expiryOf = (body: { expirationDate?: string | undefined; lifetime?: number | undefined }): Expiry | null => {
  if (body.expirationDate !== undefined) return { at: body.expirationDate }
  return body.lifetime === undefined ? null : { lifetimeMs: body.lifetime }
}

/** The user agent of a body; absent parts are null. */
export const userAgent = z
  .strictObject({
    fingerprintId: name(200).optional(),
    ip: z.string().refine((text) => isIP(text) !== 0 && !text.includes('%'), 'must be an IP address').optional(),
    description: name(1_000).optional(),
  })
  .transform(({ fingerprintId = null, ip = null, description = null }): UserAgent => ({ fingerprintId, ip, description }))

/** protojson reads standard and URL-safe base64, padded or not; stored and shown is the standard form. */
const base64 = z
  .string()
  .regex(/^[A-Za-z0-9+/_-]*={0,2}$/, 'must be base64')
  .refine((text) => text.replace(/=+$/, '').length % 4 !== 1, 'must be base64')
  .transform((text) => Buffer.from(text, 'base64').toString('base64'))

/** `map<string, bytes>` with base64 values. Sizes are those of keys and values as they are stored. */
export const metadata = z
  .record(name(200), base64)
  .refine((entries) => Object.keys(entries).length <= metadataBounds.keys, `must have at most ${metadataBounds.keys} keys`)
  .refine((entries) => sizeOf(entries) <= metadataBounds.bytes, `must have at most ${metadataBounds.bytes} bytes`)

const sizeOf = (entries: Record<string, string>): number =>
  Object.entries(entries).reduce((sum, [key, value]) => sum + Buffer.byteLength(key) + value.length, 0)

/** The details of the event that a write made, as every write answers them. */
export const details = z.object({
  sequence: z.string().describe('Number of the session’s last event, a 64-bit number as a string'),
  changeDate: z.string().describe('RFC 3339 UTC with three fractional digits, by the database’s clock'),
  resourceOwner: z.string(),
})
