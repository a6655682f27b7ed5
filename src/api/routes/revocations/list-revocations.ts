/** `GET /v1/revocations`: those that the caller sees, newest first. */
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import type { RevocationPage, RevocationsAsked } from '../../../store/revocation-list.ts'
import { errorAnswers } from '../../documented-errors.ts'
import { pageTokenOf, readPageToken } from '../../page-token.ts'
import { isRevocationId, viewerOf } from '../../revocation-viewer.ts'
import { operationAnswer, renderOperation } from '../../revocation-view.ts'
import { instant } from '../sessions/session-fields.ts'

export interface ListRevocationsDeps {
  readonly list: (asked: RevocationsAsked) => Promise<RevocationPage>
}

const MAX_PAGE = 200

const plain = z.string().regex(/^[^\p{Cc}\p{Cs}]{1,512}$/u, 'must have 1 to 512 characters and no control characters')
const state = z.enum(['running', 'paused', 'cancelled', 'done'])

/** Strict: a filter that is misspelt would show everything. */
const query = z.strictObject({
  state: z
    .preprocess((sent) => (typeof sent === 'string' ? [sent] : sent), z.array(state).max(8).optional())
    .describe('May be given several times'),
  mode: z.enum(['logout', 'revoke']).optional(),
  ticket: plain.optional(),
  actor: plain.optional().describe('The subject of who asked for it'),
  createdFrom: instant.optional().describe('RFC 3339; accepted then or later'),
  createdBefore: instant.optional().describe('RFC 3339; accepted before'),
  pageSize: z.coerce.number().int().min(1).max(MAX_PAGE).default(50),
  pageToken: z.string().max(400).optional(),
})

export const listRevocationsRoute: FastifyPluginAsyncZod<ListRevocationsDeps> = async (app, { list }) => {
  app.get('/v1/revocations', {
    schema: {
      tags: ['revocations'],
      summary: 'Revocations, newest first',
      description:
        'The caller’s own, and with `revocation.read` those that reach nothing beyond where it holds. A page may be short, or empty, and '
        + 'still have a next one.',
      querystring: query,
      response: {
        200: z.object({ revocations: z.array(operationAnswer), nextPageToken: z.string().optional() }),
        ...errorAnswers('invalid_argument'),
      },
    },
    handler: async ({ caller, query: asked }) => {
      const { revocations, next } = await list({
        viewer: viewerOf(caller),
        states: asked.state ?? null,
        mode: asked.mode ?? null,
        ticket: asked.ticket ?? null,
        actorSubject: asked.actor ?? null,
        createdFrom: asked.createdFrom ?? null,
        createdBefore: asked.createdBefore ?? null,
        before: readPageToken(asked.pageToken, isRevocationId),
        limit: asked.pageSize,
      })
      return { revocations: revocations.map(renderOperation), ...(next === null ? {} : { nextPageToken: pageTokenOf(next) }) }
    },
  })
}
