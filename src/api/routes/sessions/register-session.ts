/** `PUT /v1/sessions/{sessionId}`: registers one session (DESIGN §6). Safe to repeat: the answer is then a new token. */
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import type { SessionStore } from '../../../store/sessions.ts'
import { errorAnswers } from '../../documented-errors.ts'
import { mayWrite } from './may-write.ts'
import { registrationBody, toRegistration } from './registration.ts'
import { details, sessionId } from './session-fields.ts'

/** 100 participants and 32 cache keys of the greatest length, 16 KiB of metadata, and escapes. */
const BODY_LIMIT_BYTES = 262_144

export interface RegisterSessionDeps {
  readonly sessions: Pick<SessionStore, 'register'>
  readonly cacheKeyPrefixes: readonly string[]
}

const registered = z.object({ details, sessionToken: z.string().describe('Shown once; proves possession of the session') })

export const registerSessionRoute: FastifyPluginAsyncZod<RegisterSessionDeps> = async (app, deps) => {
  const { sessions, cacheKeyPrefixes } = deps
  app.put('/v1/sessions/:sessionId', {
    onRequest: mayWrite,
    bodyLimit: BODY_LIMIT_BYTES,
    schema: {
      tags: ['sessions'],
      summary: 'Register a session',
      description:
        'The identical body again answers 200 with a new session token, and the old one fails. Ids are global: an id in ' +
        'use at any issuer is taken. Needs session.write for the instance.',
      params: z.object({ sessionId }),
      body: registrationBody(cacheKeyPrefixes),
      response: {
        200: registered.describe('Was registered with this body; the token is new'),
        201: registered.describe('Registered'),
        ...errorAnswers('permission_denied', 'session_exists', 'session_terminated'),
      },
    },
    handler: async ({ caller, params, body }, reply) => {
      const { registration, sessionToken } = toRegistration(caller, params.sessionId, body)
      const answer = await sessions.register({ actor: caller.actor, issuers: caller.sessionIssuers }, registration)
      return reply.code(answer.added ? 201 : 200).send({ details: answer.details, sessionToken })
    },
  })
}
