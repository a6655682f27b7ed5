/**
 * `POST /v1/sessions:batchCreate`: registers up to 1,000 sessions or none (DESIGN §6). Each is judged as by
 * `PUT /v1/sessions/{sessionId}`; the first bad one fails the call and is named by its index. Safe to repeat.
 */
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import type { Caller } from '../../../auth/caller.ts'
import { CurfewError } from '../../../errors.ts'
import type { SessionStore } from '../../../store/sessions.ts'
import { errorAnswers } from '../../documented-errors.ts'
import { mayWrite } from './may-write.ts'
import { registrationFields, toRegistration } from './registration.ts'
import type { RegistrationBody } from './registration.ts'
import { ONE_EXPIRY_RULE, details, isOneExpiry, sessionId } from './session-fields.ts'

/** One statement's worth: 1,000 sessions commit in about a tenth of a second. */
const MAX_SESSIONS = 1_000

/** 4 KiB for each session of a full batch. */
const BODY_LIMIT_BYTES = 4_194_304

export interface BatchCreateSessionsDeps {
  readonly sessions: Pick<SessionStore, 'registerMany'>
  readonly cacheKeyPrefixes: readonly string[]
}

const batchBody = (cacheKeyPrefixes: readonly string[]) =>
  z.strictObject({
    sessions: z
      .array(z.strictObject({ id: sessionId, ...registrationFields(cacheKeyPrefixes) }).refine(isOneExpiry, ONE_EXPIRY_RULE))
      .min(1)
      .max(MAX_SESSIONS),
  })

const registered = z.object({ sessions: z.array(z.object({ id: z.string(), details, sessionToken: z.string() })) })

/** Completes every item, or says which one cannot be. */
const toRegistrations = (caller: Caller, items: readonly ({ id: string } & RegistrationBody)[]) => {
  const seen = new Set<string>()
  return items.map(({ id, ...body }, n) => {
    if (seen.has(id)) throw new CurfewError('invalid_argument', { says: `sessions[${n}]: id comes twice in this call` })
    seen.add(id)
    try {
      return toRegistration(caller, id, body)
    } catch (error) {
      if (!(error instanceof CurfewError)) throw error
      throw new CurfewError(error.kind, { says: `sessions[${n}]: ${error.says}`, cause: error })
    }
  })
}

export const batchCreateSessionsRoute: FastifyPluginAsyncZod<BatchCreateSessionsDeps> = async (app, deps) => {
  const { sessions, cacheKeyPrefixes } = deps
  // The router reads "::" as a colon.
  app.post('/v1/sessions::batchCreate', {
    onRequest: mayWrite,
    bodyLimit: BODY_LIMIT_BYTES,
    schema: {
      tags: ['sessions'],
      summary: 'Register many sessions',
      description:
        `Up to ${MAX_SESSIONS} sessions, all or none. An error names the index of the first bad one. ` +
        'Needs session.write for the instance.',
      body: batchBody(cacheKeyPrefixes),
      response: {
        200: registered.describe('All were registered with these bodies; their tokens are new'),
        201: registered.describe('Registered, in the order of the call'),
        ...errorAnswers('permission_denied', 'session_exists', 'session_terminated', 'body_too_large'),
      },
    },
    handler: async ({ caller, body }, reply) => {
      const asked = toRegistrations(caller, body.sessions)
      const answers = await sessions.registerMany(
        { actor: caller.actor, issuers: caller.sessionIssuers },
        asked.map(({ registration }) => registration),
      )
      const told = asked.flatMap(({ registration: { id }, sessionToken }, n) => {
        const answer = answers[n]
        return answer === undefined ? [] : [{ id, details: answer.details, sessionToken }]
      })
      return reply.code(answers.some(({ added }) => added) ? 201 : 200).send({ sessions: told })
    },
  })
}
