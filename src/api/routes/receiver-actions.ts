/** What can be done with a receiver beside storing it (DESIGN §9). What lies beyond the caller's reach is 404. */
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import type { WebhookSecrets } from '../../channels/webhook-secret.ts'
import type { Verification } from '../../delivery/verify.ts'
import { CurfewError } from '../../errors.ts'
import type { DeliveryRow } from '../../store/deliveries.ts'
import type { Within } from '../../store/receivers.ts'
import type { DeadState, Redelivered } from '../../store/redelivery.ts'
import { errorAnswers } from '../documented-errors.ts'
import { deliveryAnswer, isDeliveryId, receiverId, renderDelivery } from '../receiver-schemas.ts'
import { verbPath } from '../verb-path.ts'
import { within } from '../within.ts'

export interface ReceiverActionsDeps {
  /** Makes a webhook's secret: what is shown once, and what is stored. */
  readonly makeSecret: WebhookSecrets['make']
  readonly rotateSecret: (asked: Within & { id: string; secret: string; overlapSeconds: number }) => Promise<{ previousUntil: Date }>
  /** Sends one synthetic logout and says what became of it. */
  readonly verify: (asked: Within & { id: string }) => Promise<Verification>
  readonly redeliverAll: (asked: Within & { receiverId: string; state: DeadState }) => Promise<Redelivered>
  readonly redeliverOne: (asked: Within & { id: string }) => Promise<DeliveryRow>
  /** Tells that a receiver has something due; best effort, never throws. */
  readonly wakeReceiver: (receiverId: string) => void
}

const idParams = z.object({ id: receiverId })
const tags = ['receivers']

/** A day is enough to carry a secret to its place by hand; 0 ends a secret that has leaked at once. */
const OVERLAP_SECONDS = 86_400
const MAX_OVERLAP_SECONDS = 604_800

export const receiverActionRoutes: FastifyPluginAsyncZod<ReceiverActionsDeps> = async (app, deps) => {
  app.post(verbPath('/v1/receivers/', 'rotateSecret'), {
    schema: {
      tags,
      summary: 'Give a webhook a new secret',
      description:
        'Permission `receiver.write`. The former secret signs too for the overlap, so that the receiver can change over; one before it ' +
        'does no more. Not repeat-safe: each call is a rotation, and shows its secret once.',
      params: idParams,
      body: z
        .strictObject({ overlapSeconds: z.number().int().min(0).max(MAX_OVERLAP_SECONDS).default(OVERLAP_SECONDS) })
        .nullish(),
      response: {
        200: z
          .object({ secret: z.string(), previousSecretExpirationDate: z.string().describe('RFC 3339 UTC') })
          .meta({ description: 'The new secret, shown this once' }),
        ...errorAnswers('permission_denied', 'receiver_not_found'),
      },
    },
    handler: async (request) => {
      const allowed = within(request.caller, 'receiver.write')
      const { id } = request.params
      const { shown, sealed } = deps.makeSecret(id)
      const overlapSeconds = request.body?.overlapSeconds ?? OVERLAP_SECONDS
      const { previousUntil } = await deps.rotateSecret({ ...allowed, id, secret: sealed, overlapSeconds })
      return { secret: shown, previousSecretExpirationDate: previousUntil.toISOString() }
    },
  })

  app.post(verbPath('/v1/receivers/', 'verify'), {
    schema: {
      tags,
      summary: 'Send a receiver a synthetic logout, and see what it answers',
      description:
        'Permission `receiver.write`. One attempt through the real path, of a session that cannot exist; it is not recorded as a delivery. At ' +
        'most one a second for each receiver. For back-channel logout it also looks whether the issuer publishes the key that signs.',
      params: idParams,
      body: z.strictObject({}).nullish(),
      response: {
        200: z
          .object({
            outcome: z.string().describe('`delivered`, or what became of it instead, in the words of `lastOutcome`'),
            status: z.uint32().nullable(),
            answer: z.string().nullable().describe('The receiver’s own words, at most 1,024 characters'),
            durationMs: z.uint32(),
            problems: z.array(z.string()).describe('What stands in the way; empty where nothing does'),
          })
          .meta({ description: 'It was sent, and this came of it', examples: [{ outcome: 'delivered', status: 200, answer: null, durationMs: 41, problems: [] }] }),
        ...errorAnswers('permission_denied', 'receiver_not_found'),
      },
    },
    handler: async (request) => {
      const { problems, ...seen } = await deps.verify({ ...within(request.caller, 'receiver.write'), id: request.params.id })
      return { ...seen, problems: [...problems] }
    },
  })

  app.post(verbPath('/v1/receivers/', 'redeliver'), {
    schema: {
      tags,
      summary: 'Send a receiver’s dead letters again',
      description:
        'Permission `receiver.write`. Repeat-safe. They are due at once, with attempts and horizon begun anew; those whose session and ' +
        'tokens have expired by themselves meanwhile are left. `state: "moot"` asks for deliveries that were not sent for that reason.',
      params: idParams,
      body: z.strictObject({ state: z.enum(['failed', 'moot']).default('failed') }).nullish(),
      response: {
        200: z
          .object({ redelivered: z.uint32(), more: z.boolean().describe('There are more than one call sends again: call once more') })
          .meta({ description: 'How many are due now', examples: [{ redelivered: 17, more: false }] }),
        ...errorAnswers('permission_denied', 'receiver_not_found'),
      },
    },
    handler: async (request) => {
      const allowed = within(request.caller, 'receiver.write')
      const { id } = request.params
      const done = await deps.redeliverAll({ ...allowed, receiverId: id, state: request.body?.state ?? 'failed' })
      if (done.redelivered > 0) deps.wakeReceiver(id)
      return done
    },
  })

  app.post(verbPath('/v1/deliveries/', 'redeliver'), {
    schema: {
      tags,
      summary: 'Send one dead letter again',
      description: 'Permission `receiver.write`. Repeat-safe: what is due already stays so. Also for a delivery that is moot.',
      params: z.object({ id: z.string().max(200) }),
      body: z.strictObject({}).nullish(),
      response: {
        200: deliveryAnswer.meta({ description: 'It is due now' }),
        ...errorAnswers('permission_denied', 'delivery_not_found', 'delivery_not_dead'),
      },
    },
    handler: async (request) => {
      const allowed = within(request.caller, 'receiver.write')
      const { id } = request.params
      if (!isDeliveryId(id)) throw new CurfewError('delivery_not_found')
      const delivery = await deps.redeliverOne({ ...allowed, id })
      deps.wakeReceiver(delivery.receiverId)
      return renderDelivery(delivery)
    },
  })
}
