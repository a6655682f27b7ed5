/**
 * Every error becomes the documented shape here, and only here. What is not known to be harmless becomes a generic
 * 500, and its words go to the log, never to the caller.
 */
import type { FastifyReply, FastifyRequest } from 'fastify'
import { hasZodFastifySchemaValidationErrors } from 'fastify-type-provider-zod'
import { CurfewError } from '../errors.ts'
import type { ErrorName } from '../errors.ts'
import { isPostgresAway } from '../store/postgres-failures.ts'
import type { Log } from '../telemetry.ts'

/** Long enough for a field's path and what is wrong with it. */
const MAX_SENTENCE = 300

/** A storm of failures must not become a storm of logs; the metrics count them all. */
const MAX_LOGS_PER_SECOND = 20

/** Fastify's own errors, by code. Whatever else it refuses with a 4xx is a bad request. */
const frameworkErrors: Readonly<Record<string, readonly [ErrorName, string?]>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: ['body_too_large'],
  FST_ERR_CTP_INVALID_MEDIA_TYPE: ['unsupported_media_type'],
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: ['invalid_argument', 'Body is not as long as Content-Length says'],
  FST_ERR_BAD_URL: ['invalid_argument', 'Path has a malformed percent-encoding'],
  FST_ERR_MAX_PARAM_LENGTH: ['invalid_argument', 'Path is too long'],
  FST_ERR_NOT_FOUND: ['route_not_found'],
}

/** The error that the caller is told. Its sentence is public; `cause` is what really happened. */
const publicError = (error: unknown, { body }: FastifyRequest): CurfewError => {
  if (error instanceof CurfewError) return error
  if (hasZodFastifySchemaValidationErrors(error)) {
    const [issue] = error.validation
    if (error.validationContext === 'body' && (body === undefined || body === null)) return new CurfewError('invalid_argument', { says: 'Body is missing' })
    const field = issue?.instancePath.slice(1).replaceAll(/\/(\d+)(?=\/|$)/g, '[$1]').replaceAll('/', '.') ?? ''
    const problem = issue?.message ?? 'is not valid'
    const sentence = field === '' ? problem : `${field}: ${problem}`
    return new CurfewError('invalid_argument', { says: sentence.slice(0, MAX_SENTENCE) })
  }
  if (!(error instanceof Error)) return new CurfewError('internal', { cause: error })
  const { code, statusCode } = error as { code?: unknown; statusCode?: unknown }
  const known = typeof code === 'string' ? frameworkErrors[code] : undefined
  if (known !== undefined) {
    const [kind, says] = known
    return new CurfewError(kind, says === undefined ? { cause: error } : { says, cause: error })
  }
  const isRefusal = typeof statusCode === 'number' && statusCode >= 400 && statusCode < 500
  if (isRefusal) return new CurfewError('invalid_argument', { cause: error })
  return new CurfewError(isPostgresAway(error) ? 'unavailable' : 'internal', { cause: error })
}

/** RFC 6750 §3: without credentials no error code, else what was wrong with them. */
const challenges: Partial<Record<ErrorName, string>> = {
  auth_header_missing: 'Bearer realm="curfew"',
  auth_header_malformed: 'Bearer realm="curfew", error="invalid_request"',
  token_invalid: 'Bearer realm="curfew", error="invalid_token"',
}

/** Makes the one error handler of a server. */
export const createErrorHandler = ({ log }: { log: Log }) => {
  let second = 0
  let logged = 0

  const mayLog = (): boolean => {
    const now = Math.floor(Date.now() / 1_000)
    if (now !== second) {
      second = now
      logged = 0
    }
    logged += 1
    return logged <= MAX_LOGS_PER_SECOND
  }

  return (error: unknown, request: FastifyRequest, reply: FastifyReply): void => {
    const told = publicError(error, request)
    if ((told.kind === 'internal' || told.kind === 'unavailable') && mayLog()) {
      const fields = { event: 'http.failed', requestId: request.id, route: request.routeOptions.url, err: told.cause ?? told }
      if (told.kind === 'internal') log.error(fields, 'a request failed for a reason of ours')
      else log.warn(fields, 'a request could not be answered at present')
    }
    const challenge = challenges[told.kind]
    if (challenge !== undefined) reply.header('www-authenticate', challenge)
    if (told.retryAfterSeconds !== undefined) reply.header('retry-after', String(told.retryAfterSeconds))
    reply.status(told.status).header('content-type', 'application/json; charset=utf-8').send(JSON.stringify(told.body()))
  }
}
