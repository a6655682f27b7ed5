/**
 * The guard before a route, for Express and Fastify. It stands after whatever verifies the token: the claims must be
 * those of a verified token, because the guard checks no signature.
 *
 * Refused with 401 and `WWW-Authenticate` (RFC 6750 §3.1) where the session has ended or a rule forbids the token, and
 * where no claims are given; with 503 and `Retry-After` where the guard is too stale to say (`failClosed`).
 */
import type { Guard, Question } from './guard.ts'
import type { Verdict } from './wire.ts'

interface Refusal {
  readonly status: 401 | 503
  readonly headers: Readonly<Record<string, string>>
  readonly body: { readonly error: string; readonly error_description: string }
}

const refusal = (status: 401 | 503, error: string, says: string, header: readonly [string, string]): Refusal => ({
  status,
  headers: { 'content-type': 'application/json', 'cache-control': 'no-store', [header[0]]: header[1] },
  body: { error, error_description: says },
})

const unauthorized = (says: string) =>
  refusal(401, 'invalid_token', says, ['www-authenticate', `Bearer error="invalid_token", error_description="${says}"`])

const refusals: Readonly<Record<Exclude<Verdict, 'active'> | 'none', Refusal>> = {
  none: unauthorized('No verified token'),
  terminated: unauthorized('The session has ended'),
  cutoff: unauthorized('The session has ended'),
  stale: refusal(503, 'temporarily_unavailable', 'Whether the session is good cannot be said at present', ['retry-after', '1']),
}

const judge = (guard: Pick<Guard, 'check'>, question: Question | null | undefined): Refusal | null => {
  if (question == null) return refusals.none
  const verdict = guard.check(question)
  return verdict === 'active' ? null : refusals[verdict]
}

/** What the middleware uses of Express' response; `node:http`'s is enough. */
interface ExpressLikeResponse {
  statusCode: number
  setHeader(name: string, value: string): unknown
  end(body: string): unknown
}

/** @param ask takes the verified token's claims from the request; null: there is none. What it throws goes to `next`. */
export const expressGuard =
  <Request>(guard: Pick<Guard, 'check'>, ask: (request: Request) => Question | null | undefined) =>
  (request: Request, response: ExpressLikeResponse, next: (error?: unknown) => void): void => {
    let refused: Refusal | null
    try {
      refused = judge(guard, ask(request))
    } catch (error) {
      next(error)
      return
    }
    if (refused === null) {
      next()
      return
    }
    response.statusCode = refused.status
    for (const [name, value] of Object.entries(refused.headers)) response.setHeader(name, value)
    response.end(JSON.stringify(refused.body))
  }

interface FastifyLikeReply {
  status(code: number): FastifyLikeReply
  headers(values: Record<string, string>): FastifyLikeReply
  send(body: unknown): unknown
}

/** A hook for `onRequest` or `preHandler`, after the one that verifies the token. `ask` as with Express. */
export const fastifyGuard =
  <Request>(guard: Pick<Guard, 'check'>, ask: (request: Request) => Question | null | undefined) =>
  (request: Request, reply: FastifyLikeReply, done: (error?: Error) => void): void => {
    let refused: Refusal | null
    try {
      refused = judge(guard, ask(request))
    } catch (error) {
      done(error instanceof Error ? error : new Error(String(error)))
      return
    }
    if (refused === null) done()
    else reply.status(refused.status).headers({ ...refused.headers }).send(JSON.stringify(refused.body))
  }

const textOf = (value: unknown): string | null => (typeof value === 'string' && value !== '' ? value : null)

/**
 * The question that an access token's claims ask, by their usual names (RFC 9068, OpenID Connect).
 *
 * @param organizationClaim the claim that names the subject's organization, if tokens carry one.
 */
export const questionOf = (claims: Readonly<Record<string, unknown>>, organizationClaim?: string): Question | null => {
  const issuer = textOf(claims['iss'])
  if (issuer === null) return null
  const born = claims['auth_time'] ?? claims['iat']
  return {
    issuer,
    sessionId: textOf(claims['sid']),
    subject: textOf(claims['sub']),
    organization: organizationClaim === undefined ? null : textOf(claims[organizationClaim]),
    born: typeof born === 'number' ? born : null,
  }
}
