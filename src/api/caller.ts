/**
 * `request.caller`: who asks, set by the authentication hook before any route of the protected scope runs.
 * On a public route nothing sets it, and nothing there may read it.
 */
import type { Caller } from '../auth/caller.ts'

declare module 'fastify' {
  interface FastifyRequest {
    caller: Caller
  }
}

export type { Caller }
