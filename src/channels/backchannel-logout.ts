/**
 * OpenID Connect Back-Channel Logout 1.0 (errata set 1): a logout token in the issuer's name, posted as a form field.
 *
 * The token names only the session (`sid`) unless the receiver is set otherwise: some relying parties end every
 * session of the user when they see a `sub` beside it, others end none. It is signed anew with a new `jti` for each
 * attempt, because relying parties refuse a `jti` seen before even where only the answer was lost.
 */
import { randomUUID } from 'node:crypto'
import type { Answer, ChannelDelivery, ChannelReceiver, RemoteChannel, Verdict } from './channel.ts'
import type { SubjectForm } from '../model.ts'

/** §2.4: the event's name starts with http, not https. */
export const LOGOUT_EVENT = 'http://schemas.openid.net/event/backchannel-logout'

/** §4 encourages at most two minutes. */
const TOKEN_LIFETIME_SECONDS = 120

interface Deps {
  /** Signs claims as a JWT with the issuer's current key. */
  readonly sign: (asked: { issuer: string; alg: string; typ: string; claims: Readonly<Record<string, unknown>> }) => Promise<string>
  /** Milliseconds since 1970. */
  readonly now: () => number
}

/** The claims of one logout token (§2.4); never a `nonce`. */
const claimsOf = (delivery: ChannelDelivery, receiver: ChannelReceiver, nowMs: number): Record<string, unknown> => {
  const iat = Math.floor(nowMs / 1_000)
  return {
    iss: delivery.issuer,
    aud: delivery.clientId,
    iat,
    exp: iat + TOKEN_LIFETIME_SECONDS,
    jti: randomUUID(),
    events: { [LOGOUT_EVENT]: {} },
    ...subjectOf(delivery.ofUser ? 'sub' : receiver.subject, delivery),
  }
}

const subjectOf = (form: SubjectForm, { sid, sub }: ChannelDelivery): Record<string, string> => {
  switch (form) {
    case 'sid': return { sid }
    case 'sub': return { sub }
    case 'both': return { sid, sub }
    default: return form satisfies never
  }
}

/** §2.5 and §2.8: success is 200, and 204 is tolerated; 400 is final; what may pass by itself is tried again. */
const judge = (answer: Answer): Verdict => {
  if ('silence' in answer) return { verdict: 'retry', retryAfterMs: null }
  const { status, retryAfterMs } = answer
  if (status === 200 || status === 204) return { verdict: 'delivered' }
  if (status === 408 || status === 429) return { verdict: 'retry', retryAfterMs }
  // 501 comes from relying parties that follow an early draft, and means "logout failed" there.
  if (status >= 500 && status !== 501) return { verdict: 'retry', retryAfterMs }
  return { verdict: 'gave_up' }
}

export const createBackchannelLogout = ({ sign, now }: Deps): RemoteChannel => ({
  name: 'backchannel_logout',
  compose: async (delivery, receiver) => {
    const token = await sign({ issuer: delivery.issuer, alg: receiver.alg, typ: 'logout+jwt', claims: claimsOf(delivery, receiver, now()) })
    return {
      url: receiver.url,
      method: 'POST',
      headers: { 'content-type': 'application/x-www-form-urlencoded', accept: 'application/json' },
      // A compact JWT holds only characters that a form field carries as they are.
      body: `logout_token=${token}`,
    }
  },
  judge,
})
