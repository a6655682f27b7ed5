/**
 * Preview tokens: proof that a caller has seen how many sessions a request matches. Nothing of them is stored.
 *
 * A token says the count and until when it is good; a keyed hash (HMAC-SHA256, a key derived from QUEUE_SECRET for this
 * purpose alone) binds both to the caller, to what it may reach and to everything that was asked for.
 * QUEUE_SECRET_PREVIOUS is accepted too.
 */
import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto'

/** Long enough to read a preview and to type its count; sessions come and go meanwhile. */
export const PREVIEW_TOKEN_SECONDS = 600

/** How many sessions match: exactly, or at least so many. */
export interface Counted {
  readonly count: number
  readonly exact: boolean
}

export interface PreviewTokens {
  /** @param boundTo the caller, its reach and the request, as one text. */
  issue(counted: Counted, boundTo: string): { token: string; expiresMs: number }
  /** What the token says, or null: it is not ours, of something else, or its time is over. */
  open(token: string, boundTo: string): Counted | null
}

/** @param now milliseconds since 1970. */
export const createPreviewTokens = (deps: { secret: Uint8Array; secretPrevious: Uint8Array | null; now: () => number }): PreviewTokens => {
  const { secret, secretPrevious, now } = deps
  const keyOf = (from: Uint8Array): Buffer => Buffer.from(hkdfSync('sha256', from, '', 'curfew preview token', 32))
  const current = keyOf(secret)
  const accepted = secretPrevious === null ? [current] : [current, keyOf(secretPrevious)]
  const macOf = (key: Buffer, said: string, boundTo: string): Buffer => createHmac('sha256', key).update(`1\n${said}\n`).update(boundTo).digest()

  return {
    issue: ({ count, exact }, boundTo) => {
      const expiresMs = now() + PREVIEW_TOKEN_SECONDS * 1_000
      const said = `${expiresMs}.${exact ? '' : '~'}${count}`
      return { token: `${said}.${macOf(current, said, boundTo).toString('base64url')}`, expiresMs }
    },
    open: (token, boundTo) => {
      const [, said, expiresMs, least, count, mac] = /^((\d{1,16})\.(~?)(\d{1,16}))\.([\w-]{43})$/.exec(token) ?? []
      if (said === undefined || mac === undefined) return null
      const given = Buffer.from(mac, 'base64url')
      if (!accepted.some((key) => timingSafeEqual(macOf(key, said, boundTo), given))) return null
      return Number(expiresMs) < now() ? null : { count: Number(count), exact: least === '' }
    },
  }
}
