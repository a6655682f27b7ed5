/** What a receiver and a delivery look like on the wire, in and out. */
import { z } from 'zod'
import { signingAlgorithms } from '../channels/signing-key.ts'
import { webhookEvents } from '../model.ts'
import type { DeliveryRow } from '../store/deliveries.ts'
import type { Receiver, ReceiverSettings } from '../store/receivers.ts'

/** No colon: verbs such as `:verify` follow an id. */
export const receiverId = z
  .string()
  .regex(/^[A-Za-z0-9._~@-]{1,128}$/, 'must be 1 to 128 letters, digits or any of . _ ~ @ -')

/** A 64-bit number, as deliveries are numbered. */
export const isDeliveryId = (text: string): boolean => /^\d{1,19}$/.test(text) && BigInt(text) <= 9_223_372_036_854_775_807n

/** Names of other systems: no control characters, because Postgres text and logs must hold them. */
const name = z.string().regex(/^[^\p{Cc}\p{Cs}]{1,200}$/u, 'must have 1 to 200 characters and no control characters')

/** What every type of receiver has. */
const commonFields = {
  issuer: z.string().max(500).optional().describe('Whose sessions; defaults to the caller’s issuer'),
  resourceOwner: name.nullable().optional().describe('Only its sessions; null: all, which needs the instance'),
  maxConcurrency: z.number().int().min(1).max(64).default(8).describe('Attempts in flight at once'),
  ratePerSecond: z.number().int().min(1).max(10_000).nullable().optional(),
  enabled: z.boolean().default(true).describe('Switched off, it is told nothing; deliveries wait'),
}

const url = z.string().min(1).max(2_048)

const backchannelLogoutBody = z.strictObject({
  type: z.literal('backchannel_logout'),
  url: url.describe('Where logout tokens are posted'),
  clientId: name.describe('The relying party, as the issuer knows it'),
  subject: z.enum(['sid', 'sub', 'both']).default('sid').describe('What a logout token names'),
  alg: z.enum(signingAlgorithms).default('RS256'),
  events: z.array(z.string()).max(0, 'are for webhooks').default([]),
  ...commonFields,
})

const webhookBody = z.strictObject({
  type: z.literal('webhook'),
  url: url.describe('Where events are posted'),
  events: z
    .array(z.enum(webhookEvents))
    .min(1)
    .max(webhookEvents.length)
    .refine((events) => new Set(events).size === events.length, 'must name each event once')
    .default([...webhookEvents])
    .describe('Which events it is told of; those not named are not sent'),
  ...commonFields,
})

export const receiverBody = z
  .discriminatedUnion('type', [backchannelLogoutBody, webhookBody], { error: 'must be "backchannel_logout" or "webhook"' })
  .meta({
    examples: [
      { type: 'backchannel_logout', url: 'https://app.example.com/backchannel-logout', clientId: 'app' },
      { type: 'webhook', url: 'https://hooks.example.com/curfew', resourceOwner: '69629023906488334', events: ['session.terminated'] },
    ],
  })

/** What a registration asks for, with what its type leaves open filled in. */
export const settingsOf = (body: z.output<typeof receiverBody>, within: { issuer: string; resourceOwner: string | null }): ReceiverSettings => {
  const common = { ...body, ...within, ratePerSecond: body.ratePerSecond ?? null }
  return common.type === 'backchannel_logout' ? common : { ...common, clientId: null, subject: 'sid', alg: 'RS256' }
}

const time = z.string().describe('RFC 3339 UTC')

export const receiverAnswer = z.object({
  id: z.string(),
  type: z.enum(['backchannel_logout', 'webhook']),
  url: z.string(),
  issuer: z.string().nullable(),
  clientId: z.string().nullable().describe('Null for webhooks'),
  resourceOwner: z.string().nullable(),
  subject: z.enum(['sid', 'sub', 'both']).nullable().describe('Null for webhooks'),
  alg: z.string().nullable().describe('Null for webhooks'),
  events: z.array(z.string()),
  maxConcurrency: z.uint32(),
  ratePerSecond: z.uint32().nullable(),
  enabled: z.boolean(),
  creationDate: time,
  changeDate: time,
  breaker: z.enum(['closed', 'open', 'half_open']).describe('Open: it failed five times in a row and is left alone; half open: one attempt decides'),
  consecutiveFailures: z.uint32(),
  brokenUntil: time.nullable().describe('Its breaker is open until then'),
  goneDate: time.nullable().describe('When it answered that it is gone for good (410) and was switched off'),
  lastSuccessDate: time.nullable(),
  lastFailureDate: time.nullable(),
  draining: z.boolean().describe('It is being told at this moment'),
  pending: z.uint32().describe('Deliveries not yet told, counted up to 100,000; in a list up to 1,000 each'),
  oldestPendingDate: time.nullable().describe('Since when the oldest of them waits'),
})

export const receiverMadeAnswer = receiverAnswer.extend({
  secret: z.string().optional().describe('A webhook’s secret for Standard Webhooks; shown this once'),
})

export const deliveryAnswer = z.object({
  id: z.string(),
  receiverId: z.string(),
  event: z.enum(webhookEvents).describe('What is told'),
  sessionId: z.string().nullable().describe('Null where a user is told of, or a revocation itself'),
  clientId: z.string().nullable().describe('Null for webhooks'),
  revocation: z.string().nullable().describe('The revocation that it is part of, `revocations/{id}`'),
  state: z.enum(['pending', 'acknowledged', 'failed', 'moot']),
  attempts: z.uint32(),
  creationDate: time,
  dueDate: time.nullable().describe('When it is tried next; null once it is done, and while its revocation holds it back'),
  doneDate: time.nullable(),
  lastTriedDate: time.nullable(),
  redeliveryDate: time.nullable().describe('When it was last sent again by hand'),
  lastOutcome: z.string().nullable(),
  lastStatus: z.uint32().nullable(),
  lastAnswer: z.string().nullable().describe('The receiver’s own words'),
})

const iso = (date: Date | null): string | null => date?.toISOString() ?? null

export const renderReceiver = (receiver: Receiver): z.input<typeof receiverAnswer> => ({
  id: receiver.id,
  type: receiver.type,
  url: receiver.url,
  issuer: receiver.issuer,
  clientId: receiver.clientId,
  resourceOwner: receiver.resourceOwner,
  subject: receiver.type === 'webhook' ? null : receiver.subject,
  alg: receiver.type === 'webhook' ? null : receiver.alg,
  events: [...receiver.events],
  maxConcurrency: receiver.maxConcurrency,
  ratePerSecond: receiver.ratePerSecond,
  enabled: receiver.enabled,
  creationDate: receiver.createdAt.toISOString(),
  changeDate: receiver.updatedAt.toISOString(),
  breaker: receiver.breaker,
  consecutiveFailures: receiver.consecutiveFailures,
  brokenUntil: iso(receiver.brokenUntil),
  goneDate: iso(receiver.goneAt),
  lastSuccessDate: iso(receiver.lastSuccessAt),
  lastFailureDate: iso(receiver.lastFailureAt),
  draining: receiver.draining,
  pending: receiver.pending,
  oldestPendingDate: iso(receiver.oldestPendingAt),
})

export const renderDelivery = (delivery: DeliveryRow): z.input<typeof deliveryAnswer> => ({
  id: delivery.id,
  receiverId: delivery.receiverId,
  event: delivery.event,
  sessionId: delivery.sessionId === '' ? null : delivery.sessionId,
  revocation: delivery.revocationId === null ? null : `revocations/${delivery.revocationId}`,
  clientId: delivery.clientId === '' ? null : delivery.clientId,
  state: delivery.state,
  attempts: delivery.attempts,
  creationDate: delivery.createdAt.toISOString(),
  dueDate: delivery.state === 'pending' ? iso(delivery.dueAt) : null,
  doneDate: iso(delivery.doneAt),
  lastTriedDate: iso(delivery.lastTriedAt),
  redeliveryDate: iso(delivery.redeliveredAt),
  lastOutcome: delivery.lastOutcome,
  lastStatus: delivery.lastStatus,
  lastAnswer: delivery.lastAnswer,
})
