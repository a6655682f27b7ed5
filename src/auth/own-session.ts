/**
 * Curfew obeys itself: a bearer token that was issued from a terminated session is refused at once, however
 * good it is otherwise and whether or not it is remembered.
 */
import { CurfewError } from '../errors.ts'
import type { AuthorizationReader } from '../store/authorization.ts'
import type { Caller } from './caller.ts'

interface RefuseDeadTokenDeps {
  readonly read: Pick<AuthorizationReader, 'isTerminated'>
}

/**
 * Passes a caller whose token is alive. Reads for every request of a token with a `sid`, so that no answer is
 * older than the request; answers without a promise for a token without one. The `sid` may be the session's id
 * or what a participant knows it by.
 *
 * @throws CurfewError token_invalid; unavailable, overloaded.
 */
export const createRefuseDeadToken = ({ read }: RefuseDeadTokenDeps): ((caller: Caller) => void | Promise<void>) => {
  const refuseIfTerminated = async (sid: string, issuers: readonly string[]): Promise<void> => {
    const dead = await read.isTerminated(sid, issuers)
    if (dead) throw new CurfewError('token_invalid', { cause: new Error('its session is terminated') })
  }
  return (caller) => (caller.sid === null ? undefined : refuseIfTerminated(caller.sid, caller.sessionIssuers))
}
