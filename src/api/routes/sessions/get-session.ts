/**
 * `GET /v2/sessions/{sessionId}` and `/v2beta/…`: one session, to whoever may read it: its user, a holder of
 * `session.read` for its organization or the instance, or who shows its session token (DESIGN §6). To everybody else
 * it is as if it did not exist, in the same bytes. A terminated session does not exist from its commit on.
 */
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { reachOf } from '../../../auth/caller.ts'
import { sessionTokenMatches } from '../../../auth/session-token.ts'
import { CurfewError } from '../../../errors.ts'
import type { SessionStore } from '../../../store/sessions.ts'
import type {} from '../../caller.ts'
import { errorAnswers } from '../../documented-errors.ts'
import { readQueryNames } from './protojson-names.ts'
import { sessionId } from './session-fields.ts'
import { renderSession, sessionShape } from './session-view.ts'

export interface GetSessionDeps {
  readonly sessions: Pick<SessionStore, 'read'>
}

/** ZITADEL's bound; an empty token is none. */
const query = z.object({ sessionToken: z.string().max(500).optional() })

export const getSessionRoute: FastifyPluginAsyncZod<GetSessionDeps> = async (app, { sessions }) => {
  for (const version of ['v2', 'v2beta']) {
    app.get(`/${version}/sessions/:sessionId`, {
      preValidation: readQueryNames,
      schema: {
        tags: ['sessions'],
        summary: 'Get a session',
        deprecated: version === 'v2beta',
        params: z.object({ sessionId }),
        querystring: query,
        response: {
          200: z.object({ session: sessionShape }).describe('The session'),
          ...errorAnswers('session_not_found'),
        },
      },
      handler: async ({ caller, params, query: { sessionToken } }) => {
        const reader = { actor: caller.actor, issuers: caller.sessionIssuers, reach: reachOf(caller, 'session.read') }
        const found = await sessions.read(reader, params.sessionId)
        const shown = sessionTokenMatches(sessionToken ?? '', found?.tokenHash ?? null)
        if (found === null || !(found.readable || shown)) throw new CurfewError('session_not_found')
        return { session: renderSession(found.session) }
      },
    })
  }
}
