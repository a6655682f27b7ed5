/** The routes that register, change and read sessions (DESIGN §6). They stand behind authentication. */
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import type { LateSid } from '../../../store/session-participants.ts'
import type { SessionStore } from '../../../store/sessions.ts'
import { addParticipantRoute } from './add-participant.ts'
import { batchCreateSessionsRoute } from './batch-create-sessions.ts'
import { getSessionRoute } from './get-session.ts'
import { registerSessionRoute } from './register-session.ts'
import { searchSessionsRoute } from './search-sessions.ts'
import { updateSessionRoute } from './update-session.ts'

export interface SessionRoutesDeps {
  readonly sessions: SessionStore
  /** Wakes the delivery to these receivers. Best effort, never throws. */
  readonly wakeReceivers: (ids: readonly string[]) => void
  /** Tells the local channels of a sid that came after the termination. Never rejects. */
  readonly enforceLateSid: (late: LateSid) => Promise<void>
  /** The prefixes of which a recorded cache key must have one; none: no cache keys. */
  readonly cacheKeyPrefixes: readonly string[]
}

export const sessionRoutes: FastifyPluginAsyncZod<SessionRoutesDeps> = async (app, deps) => {
  await app.register(registerSessionRoute, deps)
  await app.register(batchCreateSessionsRoute, deps)
  await app.register(updateSessionRoute, deps)
  await app.register(addParticipantRoute, deps)
  await app.register(getSessionRoute, deps)
  await app.register(searchSessionsRoute, deps)
}
