/**
 * Curfew obeys itself: a bearer token that was issued from a terminated session, or that a cutoff rule kills, is
 * refused at once, however good it is otherwise and whether or not it is remembered.
 */
import { CurfewError } from '../errors.ts'
import type { AuthorizationReader, Death } from '../store/authorization.ts'
import { reachOf } from './caller.ts'
import type { Caller } from './caller.ts'
import type { RulesInForce } from './rules-in-force.ts'

interface RefuseDeadTokenDeps {
  readonly read: Pick<AuthorizationReader, 'death'>
  readonly rules: Pick<RulesInForce, 'death'>
  /** Counts an attempt to use what is dead. */
  readonly count: (death: Death) => void
}

/**
 * Passes a caller whose token is alive. It reads for every request, so that no answer is older than the request; with
 * one exception, the flood: a token without a `sid` that may end every session is judged without a promise by rules
 * that may be a second old. The `sid` may be the session's id or what a participant knows it by.
 *
 * @throws CurfewError token_invalid; unavailable, overloaded.
 */
export const createRefuseDeadToken = ({ read, rules, count }: RefuseDeadTokenDeps): ((caller: Caller) => void | Promise<void>) => {
  const refuseIf = (death: Death | null): void => {
    if (death === null) return
    count(death)
    const reason = death.by === 'session' ? 'its session is terminated' : 'a cutoff rule kills it'
    throw new CurfewError('token_invalid', { cause: new Error(reason) })
  }
  return (caller) => {
    const isOfTheFlood = caller.sid === null && reachOf(caller, 'session.delete') === 'instance'
    const death = isOfTheFlood ? rules.death(caller) : undefined
    return death === undefined ? read.death(caller).then(refuseIf) : refuseIf(death)
  }
}
