/**
 * May this caller end this session? The decision of the API's DELETE, in its fixed order: a session token
 * decides alone; else the caller's own session; else `session.delete`.
 *
 * Nobody learns from a refusal whether another's session exists: with a session token an unknown session is a
 * wrong token; without `session.delete` every session but one's own is refused alike; with it, what lies outside
 * its reach is unknown. Each refusal takes the same reads and comparisons whether or not the session exists.
 */
import { CurfewError } from '../errors.ts'
import type { Details, TerminateCommand } from '../model.ts'
import type { AuthorizationReader, SessionFacts } from '../store/authorization.ts'
import { reachOf } from './caller.ts'
import type { Caller, Reach } from './caller.ts'
import { sessionTokenMatches } from './session-token.ts'

/** What to do: end it, or answer at once with the first termination's details. */
export type EndDecision = { readonly command: TerminateCommand } | { readonly details: Details }

interface AuthorizeEndDeps {
  readonly read: Pick<AuthorizationReader, 'session'>
}

type AuthorizeEnd = (
  caller: Caller,
  sessionId: string,
  sessionToken: string | null,
) => EndDecision | Promise<EndDecision>

const commandFor = (caller: Caller, sessionId: string, issuers: readonly string[]): TerminateCommand => ({
  sessionId,
  issuers,
  actor: caller.actor,
  mode: 'logout',
  reason: null,
})

const speaksFor = (caller: Caller, session: SessionFacts): boolean => caller.sessionIssuers.includes(session.issuer)

/** A subject means nothing outside its issuer, and an issuer nothing outside what it speaks for. */
const owns = (caller: Caller, session: SessionFacts): boolean =>
  session.issuer === caller.actor.issuer && session.userId === caller.actor.subject && speaksFor(caller, session)

const reaches = (reach: Reach | null, session: SessionFacts): boolean =>
  reach !== null && (reach === 'instance' || reach.has(session.resourceOwner))

/**
 * Decides one request. Answers without a promise and without a read where the caller's claims alone decide; the
 * commit then says whether the session exists. An empty session token is none. Safe to repeat.
 *
 * @throws CurfewError session_token_invalid, permission_denied, session_not_found; unavailable, overloaded.
 */
export const createAuthorizeEnd = ({ read }: AuthorizeEndDeps): AuthorizeEnd => {
  const decide = (caller: Caller, sessionId: string, session: SessionFacts): EndDecision =>
    session.terminated === null
      ? { command: commandFor(caller, sessionId, [session.issuer]) }
      : { details: session.terminated }

  const byToken = async (caller: Caller, sessionId: string, sessionToken: string): Promise<EndDecision> => {
    const session = await read.session(sessionId)
    const matches = sessionTokenMatches(sessionToken, session?.tokenHash ?? null)
    if (session === null || !matches) throw new CurfewError('session_token_invalid')
    return decide(caller, sessionId, session)
  }

  const byFacts = async (caller: Caller, sessionId: string, reach: Reach | null): Promise<EndDecision> => {
    const session = await read.session(sessionId)
    if (session !== null && (owns(caller, session) || (speaksFor(caller, session) && reaches(reach, session)))) {
      return decide(caller, sessionId, session)
    }
    throw new CurfewError(reach === null ? 'permission_denied' : 'session_not_found')
  }

  return (caller, sessionId, sessionToken) => {
    if (sessionToken !== null && sessionToken !== '') return byToken(caller, sessionId, sessionToken)
    const reach = reachOf(caller, 'session.delete')
    if (reach === 'instance') return { command: commandFor(caller, sessionId, caller.sessionIssuers) }
    return byFacts(caller, sessionId, reach)
  }
}
