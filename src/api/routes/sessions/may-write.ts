import type { FastifyRequest } from 'fastify'
import { requireInstance } from '../../../auth/caller.ts'
import type {} from '../../caller.ts'

/**
 * An onRequest hook: writing sessions needs `session.write` for the whole instance, because a registrar names relying
 * parties and cache keys. It runs before the body is read, so who may not write learns nothing about bodies or ids.
 */
export const mayWrite = (request: FastifyRequest, _reply: unknown, done: (error?: Error) => void): void => {
  requireInstance(request.caller, 'session.write')
  done()
}
