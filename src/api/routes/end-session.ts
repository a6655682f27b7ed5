/**
 * `DELETE /v2/sessions/{sessionId}` and `/v2beta/…`: ends one session, for certain (DESIGN §4).
 *
 * This is the hot path, in a scope of its own: no validator, no serializer, no logging, and where the decision is
 * synchronous one promise, that of the commit. A 200 says that the termination is committed, and carries its details.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { EndDecision } from '../../auth/authorize-end.ts'
import { reachOf } from '../../auth/caller.ts'
import { CurfewError } from '../../errors.ts'
import type { DeliveryCounts, Details, TerminateAnswer, TerminateCommand } from '../../model.ts'
import type { AcceptLogOut } from '../../termination/accept-log-out.ts'
import type { Caller } from '../caller.ts'
import { readSessionToken } from '../end-session-body.ts'
import { endSessionDocument } from '../end-session-document.ts'
import { prefersAsync, waitPreference } from '../prefer.ts'
import { locationOf, renderOperation } from '../revocation-view.ts'
import { SESSION_ID_RULE, isSessionId } from '../session-id.ts'
import { createSettledWaiters } from '../settled-waiters.ts'
import type { SettledWaitersDeps } from '../settled-waiters.ts'

export interface EndSessionDeps extends SettledWaitersDeps {
  /** Who may: throws session_token_invalid, permission_denied or session_not_found. */
  readonly authorizeEnd: (caller: Caller, sessionId: string, sessionToken: string | null) => EndDecision | Promise<EndDecision>
  /** The commit, by whichever way is up: throws overloaded, not_committed_in_time or unavailable. */
  readonly ask: (command: TerminateCommand) => Promise<TerminateAnswer>
  /** For who does not wait for the commit. */
  readonly acceptLogOut: AcceptLogOut
}

/** A session token has at most some hundred characters; ZITADEL's have 283. */
const BODY_LIMIT_BYTES = 4_096

const JSON_TYPE = 'application/json; charset=utf-8'

type EndRequest = FastifyRequest<{ Params: { sessionId: string } }>

/** The plugin. Its content-type parser takes the raw bytes whatever they are called. */
export const endSessionRoutes = async (app: FastifyInstance, deps: EndSessionDeps): Promise<void> => {
  const { authorizeEnd, ask, acceptLogOut } = deps
  const settledWaiters = createSettledWaiters(deps)
  app.addHook('preClose', (done) => {
    settledWaiters.stop()
    done()
  })
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, bytes, done) => done(null, bytes))

  const decide = (request: EndRequest): EndDecision | Promise<EndDecision> => {
    const { sessionId } = request.params
    if (!isSessionId(sessionId)) throw new CurfewError('invalid_argument', { says: `sessionId ${SESSION_ID_RULE}` })
    const token = request.body === undefined ? null : readSessionToken(request.body as Buffer)
    return authorizeEnd(request.caller, sessionId, token)
  }

  const answer = (decision: EndDecision): string | Promise<string> =>
    'details' in decision ? renderDetails(decision.details) : ask(decision.command).then(renderAnswer)

  /** Holds the answer as `Prefer: wait=N` asks, where there is room for one more. */
  const answerSettled = async (request: EndRequest, reply: FastifyReply, waitSeconds: number): Promise<string> => {
    const decision = await decide(request)
    const details = 'details' in decision ? decision.details : detailsOf(await ask(decision.command))
    const waiting = settledWaiters.wait(request.params.sessionId, waitSeconds * 1_000)
    if (waiting === null) return renderDetails(details)
    reply.raw.once('close', waiting.leave)
    const settled = await waiting.settled
    reply.header('preference-applied', `wait=${waitSeconds}`)
    // Before the commit is routed the counts are not known, and zeros would say that nobody is concerned.
    return settled?.routed === true ? renderSettled(details, settled.counts) : renderDetails(details)
  }

  /** Accepts, as `Prefer: respond-async` asks, what is still to be done; the permission is that of any DELETE. */
  const answerAccepted = async (request: EndRequest, reply: FastifyReply): Promise<string> => {
    const decision = await decide(request)
    if ('details' in decision) return renderDetails(decision.details)
    const accepted = await acceptLogOut(decision.command, reachOf(request.caller, 'session.delete'))
    if (accepted === null) return answer(decision)
    if ('details' in accepted) return renderDetails(accepted.details)
    const { revocation } = accepted
    reply.status(202).header('location', locationOf(revocation.id)).header('preference-applied', 'respond-async')
    return JSON.stringify(renderOperation(revocation))
  }

  const end = (request: EndRequest, reply: FastifyReply): string | Promise<string> => {
    reply.header('content-type', JSON_TYPE)
    const { prefer } = request.raw.headers
    if (prefer !== undefined) {
      if (prefersAsync(prefer)) return answerAccepted(request, reply)
      const waitSeconds = waitPreference(prefer)
      if (waitSeconds !== null) return answerSettled(request, reply, waitSeconds)
    }
    const decision = decide(request)
    return decision instanceof Promise ? decision.then(answer) : answer(decision)
  }

  for (const url of ['/v2/sessions/:sessionId', '/v2beta/sessions/:sessionId']) {
    app.delete<{ Params: { sessionId: string } }>(url, {
      bodyLimit: BODY_LIMIT_BYTES,
      onRequest: ignoreContentType,
      config: { document: endSessionDocument(url) },
      handler: end,
    })
  }
}

/** ZITADEL ignores the content type; Fastify would refuse one that it cannot parse before any parser is asked. */
const ignoreContentType = (request: FastifyRequest, _reply: FastifyReply, done: () => void): void => {
  const { headers } = request.raw
  if (headers['content-type'] !== undefined) delete headers['content-type']
  done()
}

const detailsOf = (answer: TerminateAnswer): Details => {
  switch (answer.outcome) {
    case 'ended':
    case 'before':
      return answer.details
    case 'unknown':
      throw new CurfewError('session_not_found')
    case 'busy':
      // The line asks again by itself; if it gives up, the outcome is open.
      throw new CurfewError('not_committed_in_time')
    default:
      return answer satisfies never
  }
}

/** `{"details":{…}}`. The number and the date are ours; the organization is somebody's name and is escaped. */
const detailsField = ({ sequence, changeDate, resourceOwner }: Details): string =>
  `{"details":{"sequence":"${sequence}","changeDate":"${changeDate}","resourceOwner":${JSON.stringify(resourceOwner)}}`

const renderDetails = (details: Details): string => `${detailsField(details)}}`

const renderAnswer = (answer: TerminateAnswer): string => renderDetails(detailsOf(answer))

const renderSettled = (details: Details, deliveries: DeliveryCounts): string =>
  `${detailsField(details)},"deliveries":${JSON.stringify(deliveries)}}`
