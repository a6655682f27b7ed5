/**
 * `/v1/receivers`: who is told of terminations, and what became of it (DESIGN §9).
 *
 * A receiver of an organization is seen and steered within it, one without an organization needs the instance, and
 * either only by callers who speak for its issuer. Whatever lies beyond is 404, on PUT too.
 */
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import type { Reach } from '../../auth/caller.ts'
import type { SigningAlgorithm } from '../../channels/signing-key.ts'
import { CurfewError } from '../../errors.ts'
import type { DeliveryState } from '../../model.ts'
import type { DeliveryRow } from '../../store/deliveries.ts'
import type { Receiver, ReceiverSettings, Within } from '../../store/receivers.ts'
import { errorAnswers } from '../documented-errors.ts'
import { pageTokenOf, readPageToken } from '../page-token.ts'
import {
  deliveryAnswer, isDeliveryId, receiverAnswer, receiverBody, receiverId, receiverMadeAnswer, renderDelivery, renderReceiver, settingsOf,
} from '../receiver-schemas.ts'
import { within } from '../within.ts'
import { receiverActionRoutes } from './receiver-actions.ts'
import type { ReceiverActionsDeps } from './receiver-actions.ts'

export interface ReceiverRoutesDeps extends ReceiverActionsDeps {
  readonly putReceiver: (
    asked: Within & { id: string; settings: ReceiverSettings; secret: string | null },
  ) => Promise<{ receiver: Receiver; created: boolean }>
  readonly getReceiver: (asked: Within & { id: string }) => Promise<Receiver>
  readonly listReceivers: (asked: Within & { after: string | null; limit: number }) => Promise<readonly Receiver[]>
  readonly deleteReceiver: (asked: Within & { id: string }) => Promise<void>
  readonly listDeliveries: (
    asked: Within & { receiverId: string; state: DeliveryState | null; before: string | null; limit: number },
  ) => Promise<readonly DeliveryRow[]>
  /** Throws invalid_argument with a sentence where nothing may ever be sent to this URL. */
  readonly checkReceiverUrl: (url: string) => unknown
  /** Makes sure that logout tokens of this issuer can be signed. Repeat-safe. */
  readonly ensureKey: (issuer: string, alg: SigningAlgorithm) => Promise<unknown>
}

const MAX_PAGE = 1_000
const pageSize = z.coerce.number().int().min(1).max(MAX_PAGE).default(100)
/** Strict: a filter that is misspelt would show everything. */
const listQuery = z.strictObject({ pageSize, pageToken: z.string().max(400).optional() })
const idParams = z.object({ id: receiverId })
const tags = ['receivers']

const isReceiverId = (key: string): boolean => receiverId.safeParse(key).success

export const receiverRoutes: FastifyPluginAsyncZod<ReceiverRoutesDeps> = async (app, deps) => {
  await app.register(receiverActionRoutes, deps)

  app.put('/v1/receivers/:id', {
    schema: {
      tags,
      summary: 'Create or replace a receiver',
      description: 'Permission `receiver.write`. Repeat-safe. A receiver keeps its type. The answer that creates a webhook shows its secret, once.',
      params: idParams,
      body: receiverBody,
      response: {
        200: receiverAnswer.meta({ description: 'Replaced' }),
        201: receiverMadeAnswer.meta({ description: 'Created' }),
        ...errorAnswers('permission_denied', 'receiver_not_found', 'body_too_large'),
      },
    },
    handler: async (request, reply) => {
      const { caller, body } = request
      const allowed = within(caller, 'receiver.write')
      const issuer = body.issuer ?? caller.actor.issuer
      const resourceOwner = body.resourceOwner ?? null
      // A caller cannot make anybody be told in another issuer's name, or of another organization's sessions.
      if (!allowed.issuers.includes(issuer) || !reaches(allowed.reach, resourceOwner)) throw new CurfewError('permission_denied')
      await deps.checkReceiverUrl(body.url)
      const { id } = request.params
      const settings = settingsOf(body, { issuer, resourceOwner })
      if (body.type === 'backchannel_logout') await deps.ensureKey(issuer, body.alg)
      const secret = body.type === 'webhook' ? deps.makeSecret(id) : null
      const { receiver, created } = await deps.putReceiver({ ...allowed, id, settings, secret: secret?.sealed ?? null })
      if (!created) return reply.status(200).send(renderReceiver(receiver))
      return reply.status(201).send({ ...renderReceiver(receiver), ...(secret === null ? {} : { secret: secret.shown }) })
    },
  })

  app.get('/v1/receivers/:id', {
    schema: {
      tags,
      summary: 'One receiver, its health and its backlog',
      description: 'Permission `receiver.read`.',
      params: idParams,
      response: { 200: receiverAnswer, ...errorAnswers('permission_denied', 'receiver_not_found') },
    },
    handler: async (request) =>
      renderReceiver(await deps.getReceiver({ ...within(request.caller, 'receiver.read'), id: request.params.id })),
  })

  app.get('/v1/receivers', {
    schema: {
      tags,
      summary: 'The receivers within reach with their health, in the order of their ids',
      description: 'Permission `receiver.read`.',
      querystring: listQuery,
      response: {
        200: z.object({ receivers: z.array(receiverAnswer), nextPageToken: z.string().optional() }),
        ...errorAnswers('permission_denied'),
      },
    },
    handler: async (request) => {
      const allowed = within(request.caller, 'receiver.read')
      const limit = request.query.pageSize
      const after = readPageToken(request.query.pageToken, isReceiverId)
      // One more than asked for says whether there is a next page.
      const found = await deps.listReceivers({ ...allowed, after, limit: limit + 1 })
      return { receivers: found.slice(0, limit).map(renderReceiver), ...nextPage(found, limit) }
    },
  })

  app.delete('/v1/receivers/:id', {
    schema: {
      tags,
      summary: 'Delete a receiver and its deliveries',
      description: 'Permission `receiver.write`. What it was not yet told, it is never told.',
      params: idParams,
      response: { 204: z.void().meta({ description: 'Deleted' }), ...errorAnswers('permission_denied', 'receiver_not_found') },
    },
    handler: async (request, reply) => {
      await deps.deleteReceiver({ ...within(request.caller, 'receiver.write'), id: request.params.id })
      return reply.status(204).send()
    },
  })

  app.get('/v1/receivers/:id/deliveries', {
    schema: {
      tags,
      summary: 'What a receiver was told, newest first',
      description: 'Permission `receiver.read`.',
      params: idParams,
      querystring: listQuery.extend({ state: z.enum(['pending', 'acknowledged', 'failed', 'moot']).optional() }),
      response: {
        200: z.object({ deliveries: z.array(deliveryAnswer), nextPageToken: z.string().optional() }),
        ...errorAnswers('permission_denied', 'receiver_not_found'),
      },
    },
    handler: async (request) => {
      const allowed = within(request.caller, 'receiver.read')
      const { pageSize: limit, state = null } = request.query
      const before = readPageToken(request.query.pageToken, isDeliveryId)
      const found = await deps.listDeliveries({ ...allowed, receiverId: request.params.id, state, before, limit: limit + 1 })
      return { deliveries: found.slice(0, limit).map(renderDelivery), ...nextPage(found, limit) }
    },
  })
}

/** An organization is reached by name; what belongs to none, by the instance alone. */
const reaches = (reach: Reach, resourceOwner: string | null): boolean =>
  reach === 'instance' || (resourceOwner !== null && reach.has(resourceOwner))

const nextPage = (found: readonly { readonly id: string }[], limit: number): { nextPageToken?: string } => {
  const last = found[limit - 1]
  return found.length > limit && last !== undefined ? { nextPageToken: pageTokenOf(last.id) } : {}
}
