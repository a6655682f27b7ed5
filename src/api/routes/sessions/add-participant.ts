/**
 * `PUT /v1/sessions/{sessionId}/clients/{clientId}`: a relying party joins a session (DESIGN §6). One that comes after
 * the termination is stored, told like the others, and answered 409.
 */
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { CurfewError } from '../../../errors.ts'
import { CUTOFF_SAYS } from '../../../store/cutoff-match.ts'
import type { LateSid } from '../../../store/session-participants.ts'
import type { SessionStore } from '../../../store/sessions.ts'
import { errorAnswers } from '../../documented-errors.ts'
import { mayWrite } from './may-write.ts'
import { details, sessionId, subject } from './session-fields.ts'

export interface AddParticipantDeps {
  readonly sessions: Pick<SessionStore, 'addParticipant'>
  /** Wakes the delivery to these receivers. Best effort, never throws: what is due is found in Postgres anyway. */
  readonly wakeReceivers: (ids: readonly string[]) => void
  /** Tells the local channels of a sid that came after the termination, within a bound. Never rejects. */
  readonly enforceLateSid: (late: LateSid) => Promise<void>
}

export const addParticipantRoute: FastifyPluginAsyncZod<AddParticipantDeps> = async (app, { sessions, wakeReceivers, enforceLateSid }) => {
  app.put('/v1/sessions/:sessionId/clients/:clientId', {
    onRequest: mayWrite,
    preValidation: async (request) => {
      if (request.body === undefined) request.body = {}
    },
    schema: {
      tags: ['sessions'],
      summary: 'Add a participant to a session',
      description:
        'The same participant again changes nothing. If the session is terminated, or ends while this waits, the answer ' +
        'is 409 and that client is told. Where a cutoff rule kills the session the answer is 409 too, and that client is ' +
        'told when the session is ended. Needs session.write for the instance.',
      params: z.object({ sessionId, clientId: subject }),
      body: z.strictObject({
        sid: subject.optional().describe('What the client calls the session; defaults to its id'),
        sub: subject.optional().describe('What the client calls the user; defaults to the user id'),
      }),
      response: {
        200: z.object({ details }).describe('The client is a participant'),
        ...errorAnswers('permission_denied', 'session_not_found', 'session_terminated'),
      },
    },
    handler: async ({ caller, params, body }) => {
      const answer = await sessions.addParticipant(
        { actor: caller.actor, issuers: caller.sessionIssuers },
        { ...params, sid: body.sid ?? null, sub: body.sub ?? null },
      )
      if (answer.outcome === 'present') return { details: answer.details }
      if (answer.outcome === 'killed') throw new CurfewError('session_terminated', { says: CUTOFF_SAYS })
      wakeReceivers(answer.wake)
      if (answer.late !== null) await enforceLateSid(answer.late)
      throw new CurfewError('session_terminated')
    },
  })
}
