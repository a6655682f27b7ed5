/**
 * Webhooks as Standard Webhooks 1.0 has them: an event as JSON, signed with a secret that we share with its receiver.
 *
 * The id and the body are the same for every attempt, so that a receiver can tell a repetition; the timestamp and
 * with it the signature are of the attempt, so that receivers can refuse what is replayed later. While a secret is
 * being rotated the new and the former one both sign.
 */
import { createHash, createHmac } from 'node:crypto'
import type { Answer, ChannelDelivery, ChannelReceiver, RemoteChannel, Verdict } from './channel.ts'

interface Deps {
  /** The bytes of a receiver's secret. Throws where it cannot be read. */
  readonly openSecret: (receiverId: string, sealed: string) => Uint8Array
  /** Milliseconds since 1970. */
  readonly now: () => number
}

/** The body of a `session.terminated` event; its schema is in the OpenAPI document. */
export interface SessionTerminatedEvent {
  readonly type: 'session.terminated'
  readonly timestamp: string
  readonly data: {
    readonly sessionId: string
    readonly issuer: string
    readonly userId: string
    readonly resourceOwner: string
    readonly mode: 'logout' | 'revoke'
    readonly reason?: string
    readonly sequence: string
    readonly terminatedAt: string
  }
}

/** Receivers expect bodies under 20 kB; all else in one is bounded far below by the sessions' own limits. */
export const MAX_REASON_LENGTH = 1_000

/**
 * The message's id: 22 characters, the same for every attempt and for nothing else. Made from what is told and to
 * whom, so that it stays what it is where deliveries are numbered anew (a restored database).
 */
const messageIdOf = (delivery: ChannelDelivery, receiver: ChannelReceiver): string => {
  const told = JSON.stringify([receiver.id, 'session.terminated', delivery.issuer, delivery.sessionId])
  return `msg_${createHash('sha256').update(told).digest('base64url').slice(0, 22)}`
}

const eventOf = ({ sessionId, issuer, sub, termination }: ChannelDelivery): SessionTerminatedEvent => {
  if (termination === null) throw new Error('The event of the termination is no longer there')
  const at = new Date(termination.terminatedAtMs).toISOString()
  return {
    type: 'session.terminated',
    timestamp: at,
    data: {
      sessionId,
      issuer,
      userId: sub,
      resourceOwner: termination.resourceOwner,
      mode: termination.mode,
      ...(termination.reason === null ? {} : { reason: termination.reason.slice(0, MAX_REASON_LENGTH) }),
      sequence: termination.sequence,
      terminatedAt: at,
    },
  }
}

/** Any 2xx is success, 410 means gone for good, a redirect is final, and all else may pass by itself. */
const judge = (answer: Answer): Verdict => {
  if ('silence' in answer) return { verdict: 'retry', retryAfterMs: null }
  const { status, retryAfterMs } = answer
  if (status >= 200 && status < 300) return { verdict: 'delivered' }
  if (status === 410) return { verdict: 'receiver_gone' }
  if (status >= 300 && status < 400) return { verdict: 'gave_up' }
  return { verdict: 'retry', retryAfterMs }
}

export const createWebhook = ({ openSecret, now }: Deps): RemoteChannel => ({
  name: 'webhook',
  compose: async (delivery, receiver) => {
    const body = JSON.stringify(eventOf(delivery))
    const id = messageIdOf(delivery, receiver)
    const timestamp = String(Math.floor(now() / 1_000))
    const signed = `${id}.${timestamp}.${body}`
    if (receiver.secrets.length === 0) throw new Error('The webhook has no secret')
    const signatures = receiver.secrets.map((sealed) =>
      `v1,${createHmac('sha256', openSecret(receiver.id, sealed)).update(signed).digest('base64')}`,
    )
    return {
      url: receiver.url,
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        'webhook-id': id,
        'webhook-timestamp': timestamp,
        'webhook-signature': signatures.join(' '),
      },
      body,
    }
  },
  judge,
})
