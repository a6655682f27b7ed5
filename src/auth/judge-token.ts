/**
 * Is this token of another good at this moment? What `POST /v1/introspect` answers (RFC 7662): verified as our own
 * bearer tokens are, for its audience or one of the entry's `introspectedAudiences`, and then asked in Postgres whether
 * its session is terminated or a cutoff rule kills it, so no answer is older than its question.
 */
import { CurfewError } from '../errors.ts'
import type { AuthorizationReader, Death } from '../store/authorization.ts'
import type { Log } from '../telemetry.ts'
import type { Caller } from './caller.ts'
import { createIntrospect } from './introspection.ts'
import { createRecognize } from './recognize.ts'
import type { Trust } from './trust.ts'
import { callerOf } from './verified-token.ts'
import type { VerifiedToken } from './verified-token.ts'

interface JudgeTokenDeps {
  readonly trust: Trust
  readonly read: Pick<AuthorizationReader, 'death'>
  /** Counts an attempt to use what is dead. */
  readonly count: (death: Death) => void
  readonly log: Pick<Log, 'warn'>
  /** Milliseconds since 1970. */
  readonly now?: () => number
  /** Milliseconds that never jump; only differences count. */
  readonly elapsed?: () => number
}

/** The claims of a token that is good, or null: it is not, for whatever reason. */
export type JudgeToken = (caller: Caller, token: string) => Promise<Readonly<Record<string, unknown>> | null>

/**
 * Makes the judge. A token of an issuer that the caller does not speak for is not good. A token bound to a key is judged
 * like others: who asks has its `cnf` in the answer and checks the proof.
 *
 * @throws (rejects) CurfewError issuer_unavailable where an issuer cannot be asked or its keys cannot be had,
 * overloaded, unavailable.
 */
export const createJudgeToken = (deps: JudgeTokenDeps): JudgeToken => {
  const { trust, read, count, log, now = Date.now, elapsed = () => performance.now() } = deps
  const issuers = trust.issuers.map((issuer) => ({
    ...issuer,
    audiences: new Set([...issuer.audiences, ...(issuer.entry.introspectedAudiences ?? [])]),
  }))
  const recognize = createRecognize({ issuers, keys: trust.keys, now, mayBeBound: true })
  const introspect = createIntrospect({ fetchJson: trust.fetchJson, keep: (verified) => verified, mayBeBound: true, now, elapsed, log })

  /** Null: not a token that our issuers vouch for. */
  const verify = async (token: string): Promise<VerifiedToken | null> => {
    try {
      const recognized = recognize(token)
      return await ('ask' in recognized ? introspect(token, recognized.ask) : recognized.verify())
    } catch (error) {
      if (error instanceof CurfewError && error.kind === 'token_invalid') return null
      throw error
    }
  }

  const maySpeakOf = (caller: Caller, { issuer: { entry } }: VerifiedToken): boolean =>
    caller.actor.issuer === entry.issuer || caller.sessionIssuers.includes(entry.issuer)

  return async (caller, token) => {
    const verified = await verify(token)
    if (verified === null || !maySpeakOf(caller, verified)) return null
    const death = await read.death(callerOf(verified))
    if (death !== null) count(death)
    return death === null ? { ...verified.claims, iss: verified.issuer.entry.issuer } : null
  }
}
