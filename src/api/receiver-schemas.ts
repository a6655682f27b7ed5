/** What a receiver and a delivery look like on the wire, in and out. */
import { z } from 'zod'
import { signingAlgorithms } from '../channels/signing-key.ts'
import type { DeliveryRow } from '../store/deliveries.ts'
import type { Receiver } from '../store/receivers.ts'

/** No colon: verbs such as `:verify` follow an id. */
export const receiverId = z
  .string()
  .regex(/^[A-Za-z0-9._~@-]{1,128}$/, 'must be 1 to 128 letters, digits or any of . _ ~ @ -')

/** Names of other systems: no control characters, because Postgres text and logs must hold them. */
const name = z.string().regex(/^[^\p{Cc}\p{Cs}]{1,200}$/u, 'must have 1 to 200 characters and no control characters')

export const receiverBody = z
  .strictObject({
    type: z.literal('backchannel_logout', 'must be "backchannel_logout"; "webhook" is not supported yet'),
    url: z.string().min(1).max(2_048).describe('Where logout tokens are posted'),
    issuer: z.string().max(500).optional().describe('Whose sessions; defaults to the caller’s issuer'),
    clientId: name.describe('The relying party, as the issuer knows it'),
    resourceOwner: name.nullable().optional().describe('Only its sessions; null: all, which needs the instance'),
    subject: z.enum(['sid', 'sub', 'both']).default('sid').describe('What a logout token names'),
    alg: z.enum(signingAlgorithms).default('RS256'),
    events: z.array(z.string()).max(0, 'are for webhooks').default([]),
    maxConcurrency: z.number().int().min(1).max(64).default(8).describe('Attempts in flight at once'),
    ratePerSecond: z.number().int().min(1).max(10_000).nullable().optional(),
    enabled: z.boolean().default(true).describe('Switched off, it is told nothing; deliveries wait'),
  })
  .meta({ examples: [{ type: 'backchannel_logout', url: 'https://app.example.com/backchannel-logout', clientId: 'app' }] })

const time = z.string().describe('RFC 3339 UTC')

export const receiverAnswer = z.object({
  id: z.string(),
  type: z.enum(['backchannel_logout', 'webhook']),
  url: z.string(),
  issuer: z.string().nullable(),
  clientId: z.string().nullable(),
  resourceOwner: z.string().nullable(),
  subject: z.enum(['sid', 'sub', 'both']),
  alg: z.string(),
  events: z.array(z.string()),
  maxConcurrency: z.uint32(),
  ratePerSecond: z.uint32().nullable(),
  enabled: z.boolean(),
  creationDate: time,
  changeDate: time,
  consecutiveFailures: z.uint32(),
  brokenUntil: time.nullable().describe('Its breaker is open until then'),
  lastSuccessDate: time.nullable(),
  lastFailureDate: time.nullable(),
})

export const deliveryAnswer = z.object({
  id: z.string(),
  receiverId: z.string(),
  sessionId: z.string(),
  clientId: z.string(),
  state: z.enum(['pending', 'acknowledged', 'failed', 'moot']),
  attempts: z.uint32(),
  creationDate: time,
  dueDate: time.nullable().describe('When it is tried next; null once it is done'),
  doneDate: time.nullable(),
  lastTriedDate: time.nullable(),
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
  subject: receiver.subject,
  alg: receiver.alg,
  events: [...receiver.events],
  maxConcurrency: receiver.maxConcurrency,
  ratePerSecond: receiver.ratePerSecond,
  enabled: receiver.enabled,
  creationDate: receiver.createdAt.toISOString(),
  changeDate: receiver.updatedAt.toISOString(),
  consecutiveFailures: receiver.consecutiveFailures,
  brokenUntil: iso(receiver.brokenUntil),
  lastSuccessDate: iso(receiver.lastSuccessAt),
  lastFailureDate: iso(receiver.lastFailureAt),
})

export const renderDelivery = (delivery: DeliveryRow): z.input<typeof deliveryAnswer> => ({
  id: delivery.id,
  receiverId: delivery.receiverId,
  sessionId: delivery.sessionId,
  clientId: delivery.clientId,
  state: delivery.state,
  attempts: delivery.attempts,
  creationDate: delivery.createdAt.toISOString(),
  dueDate: delivery.state === 'pending' ? delivery.dueAt.toISOString() : null,
  doneDate: iso(delivery.doneAt),
  lastTriedDate: iso(delivery.lastTriedAt),
  lastOutcome: delivery.lastOutcome,
  lastStatus: delivery.lastStatus,
  lastAnswer: delivery.lastAnswer,
})
