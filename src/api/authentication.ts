/**
 * Who asks: one onRequest hook for the whole protected scope, so that it runs before the body is read and before
 * anything is validated (a bad id without credentials is 401, as with ZITADEL).
 *
 * For a remembered token everything here is synchronous: no promise is made on the hot path.
 */
import type { FastifyReply, FastifyRequest } from 'fastify'
import { CurfewError } from '../errors.ts'
import type { Caller } from './caller.ts'

export interface AuthenticationDeps {
  /** Throws (or rejects with) auth_header_missing, auth_header_malformed or token_invalid. */
  readonly authenticate: (authorization: string | undefined) => Caller | Promise<Caller>
  /** Throws token_invalid where the session of the caller's own token has ended. */
  readonly refuseDeadToken: (caller: Caller) => void | Promise<void>
  readonly limits: {
    /** Counts a request of this caller; throws too_many_requests. */
    readonly admit: (caller: Caller) => void
    /** Counts a refused token of this address; throws too_many_requests where there were too many. */
    readonly refused: (address: string) => void
  }
}

type Done = (error?: Error) => void

/** Makes the hook. It sets `request.caller`, or ends the request with the error. */
export const createAuthenticationHook = ({ authenticate, refuseDeadToken, limits }: AuthenticationDeps) => {
  const refuse = (error: unknown, request: FastifyRequest): Error => {
    if (!(error instanceof CurfewError) || error.kind !== 'token_invalid') return asError(error)
    try {
      limits.refused(request.ip)
      return error
    } catch (tooMany) {
      return asError(tooMany)
    }
  }

  const check = (caller: Caller, request: FastifyRequest): void | Promise<void> => {
    request.caller = caller
    limits.admit(caller)
    return refuseDeadToken(caller)
  }

  return (request: FastifyRequest, _reply: FastifyReply, done: Done): void => {
    try {
      const caller = authenticate(request.raw.headers.authorization)
      const checked = caller instanceof Promise ? caller.then((known) => check(known, request)) : check(caller, request)
      if (checked === undefined) {
        done()
        return
      }
      checked.then(() => done(), (error: unknown) => done(refuse(error, request)))
    } catch (error) {
      done(refuse(error, request))
    }
  }
}

const asError = (error: unknown): Error => (error instanceof Error ? error : new CurfewError('internal', { cause: error }))
