/** `PATCH /v1/sessions/{sessionId}`: changes metadata, user agent or expiry, and rotates the session token (DESIGN §6). */
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { newSessionToken } from '../../../auth/session-token.ts'
import type { SessionStore } from '../../../store/sessions.ts'
import { errorAnswers } from '../../documented-errors.ts'
import { mayWrite } from './may-write.ts'
import { ONE_EXPIRY_RULE, details, expiryFields, expiryOf, isOneExpiry, metadata, sessionId, userAgent } from './session-fields.ts'

export interface UpdateSessionDeps {
  readonly sessions: Pick<SessionStore, 'update'>
}

const changeBody = z
  .strictObject({
    metadata: metadata.optional().describe('Merged into what is there; an empty value deletes its key'),
    userAgent: userAgent.optional().describe('Replaces the whole user agent'),
    ...expiryFields,
  })
  .refine(isOneExpiry, ONE_EXPIRY_RULE)

export const updateSessionRoute: FastifyPluginAsyncZod<UpdateSessionDeps> = async (app, { sessions }) => {
  app.patch('/v1/sessions/:sessionId', {
    onRequest: mayWrite,
    schema: {
      tags: ['sessions'],
      summary: 'Update a session',
      description: 'Every update rotates the session token; the old one fails at once. Needs session.write for the instance.',
      params: z.object({ sessionId }),
      body: changeBody,
      response: {
        200: z.object({ details, sessionToken: z.string() }).describe('Updated'),
        ...errorAnswers('permission_denied', 'session_not_found', 'session_terminated', 'session_expired'),
      },
    },
    handler: async ({ caller, params, body }) => {
      const { token, hash: tokenHash } = newSessionToken()
      const changed = await sessions.update(
        { actor: caller.actor, issuers: caller.sessionIssuers },
        {
          id: params.sessionId,
          metadata: body.metadata ?? null,
          userAgent: body.userAgent ?? null,
          expiry: expiryOf(body),
          tokenHash,
        },
      )
      return { details: changed, sessionToken: token }
    },
  })
}
