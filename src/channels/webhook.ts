/**
 * Webhooks as Standard Webhooks 1.0 has them: an event as JSON, signed with a secret that we share with its receiver.
 *
 * The id and the body are the same for every attempt, so that a receiver can tell a repetition; the timestamp and
 * with it the signature are of the attempt, so that receivers can refuse what is replayed later. While a secret is
 * being rotated the new and the former one both sign.
 */
import { createHash, createHmac } from 'node:crypto'
import type { ToldCompletion } from '../store/told.ts'
import type { Answer, ChannelDelivery, ChannelReceiver, RemoteChannel, Verdict } from './channel.ts'

interface Deps {
  /** The bytes of a receiver's secret. Throws where it cannot be read. */
  readonly openSecret: (receiverId: string, sealed: string) => Uint8Array
  /** Milliseconds since 1970. */
  readonly now: () => number
}

/** The bodies of events; their schemas are in the OpenAPI document. */
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

export interface RevocationCompletedEvent {
  readonly type: 'revocation.completed'
  readonly timestamp: string
  readonly data: {
    readonly revocation: string
    readonly mode: 'logout' | 'revoke'
    readonly reason?: string
    readonly ticket?: string
    readonly createTime: string
    readonly cutoffTime: string
    readonly committedTime: string
    readonly enforcedTime?: string
    readonly sessions?: { readonly matched: string; readonly terminated: string }
  }
}

/** Receivers expect bodies under 20 kB; all else in one is bounded far below by the sessions' own limits. */
export const MAX_REASON_LENGTH = 1_000

/**
 * The message's id: 22 characters, the same for every attempt and for nothing else. Made from what is told and to
 * whom, so that it stays what it is where deliveries are numbered anew (a restored database).
 */
const messageIdOf = ({ issuer, sessionId, completion }: ChannelDelivery, receiver: ChannelReceiver): string => {
  const told = JSON.stringify([receiver.id, ...(completion === null ? ['session.terminated', issuer, sessionId] : ['revocation.completed', completion.id])])
  return `msg_${createHash('sha256').update(told).digest('base64url').slice(0, 22)}`
}

const terminatedOf = ({ sessionId, issuer, sub, termination }: ChannelDelivery): SessionTerminatedEvent => {
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

const completedOf = (completion: ToldCompletion): RevocationCompletedEvent => {
  const { id, mode, reason, ticket, createTime, cutoffTime, committedTime, enforcedTime, sessions } = completion
  return {
    type: 'revocation.completed',
    timestamp: committedTime,
    data: {
      revocation: `revocations/${id}`,
      mode,
      ...(reason === null ? {} : { reason: reason.slice(0, MAX_REASON_LENGTH) }),
      ...(ticket === null ? {} : { ticket }),
      createTime,
      cutoffTime,
      committedTime,
      ...(enforcedTime === null ? {} : { enforcedTime }),
      ...(sessions === null ? {} : { sessions }),
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
    const body = JSON.stringify(delivery.completion === null ? terminatedOf(delivery) : completedOf(delivery.completion))
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
