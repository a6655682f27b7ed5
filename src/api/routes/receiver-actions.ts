/** What can be done with a receiver beside storing it (DESIGN §9). What lies beyond the caller's reach is 404. */
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import type { WebhookSecrets } from '../../channels/webhook-secret.ts'
import type { Within } from '../../store/receivers.ts'
import { errorAnswers } from '../documented-errors.ts'
import { receiverId } from '../receiver-schemas.ts'
import { verbPath } from '../verb-path.ts'
import { within } from '../within.ts'

export interface ReceiverActionsDeps {
  /** Makes a webhook's secret: what is shown once, and what is stored. */
  readonly makeSecret: WebhookSecrets['make']
  readonly rotateSecret: (asked: Within & { id: string; secret: string; overlapSeconds: number }) => Promise<{ previousUntil: Date }>
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
}
