/**
 * The API's HTTP server: what every request meets, in order. Not listening; `service.ts` starts and stops it.
 *
 * Limits on size, time and depth hold before authentication; authentication before bodies, ids and permissions. Every
 * error, also of broken HTTP, has the documented shape, and none carries a word of the inside.
 */
import { METHODS } from 'node:http'
import Fastify from 'fastify'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { serializerCompiler, validatorCompiler } from 'fastify-type-provider-zod'
import { CurfewError } from '../errors.ts'
import type { Log, Metrics } from '../telemetry.ts'
import { createAllowedMethods } from './allowed-methods.ts'
import { createAuthenticationHook } from './authentication.ts'
import type { AuthenticationDeps } from './authentication.ts'
import { answerClientError } from './client-errors.ts'
import { drainConnections } from './drain-connections.ts'
import { meterRoutes } from './metering.ts'
import { openApiRoutes, registerOpenApi } from './openapi.ts'
import { readJson } from './read-json.ts'
import { createErrorHandler } from './render-error.ts'
import { createRequestIds } from './request-id.ts'
import { attemptRoutes } from './routes/attempts.ts'
import type { AttemptRoutesDeps } from './routes/attempts.ts'
import { endSessionRoutes } from './routes/end-session.ts'
import type { EndSessionDeps } from './routes/end-session.ts'
import { healthRoutes } from './routes/health.ts'
import type { HealthDeps } from './routes/health.ts'
import { introspectRoute } from './routes/introspect.ts'
import type { IntrospectDeps } from './routes/introspect.ts'
import { jwksRoutes } from './routes/jwks.ts'
import type { JwksDeps } from './routes/jwks.ts'
import { reportRoute } from './routes/revocations/report.ts'
import type { ReportRouteDeps } from './routes/revocations/report.ts'
import { revocationRoutes } from './routes/revocations/revocation-routes.ts'
import type { RevocationRoutesDeps } from './routes/revocations/revocation-routes.ts'
import { receiverRoutes } from './routes/receivers.ts'
import type { ReceiverRoutesDeps } from './routes/receivers.ts'
import { streamRoutes } from './routes/stream.ts'
import type { StreamRoutesDeps } from './routes/stream.ts'
import { sessionRoutes } from './routes/sessions/session-routes.ts'
import type { SessionRoutesDeps } from './routes/sessions/session-routes.ts'

export interface ApiDeps extends AuthenticationDeps, EndSessionDeps, HealthDeps, JwksDeps {
  readonly receivers: ReceiverRoutesDeps
  readonly sessionRoutes: SessionRoutesDeps
  readonly introspect: IntrospectDeps
  readonly stream: Omit<StreamRoutesDeps, 'refuseDeadToken'>
  readonly revocations: Omit<RevocationRoutesDeps, 'refuseDeadToken'>
  readonly attempts: AttemptRoutesDeps
  readonly report: ReportRouteDeps
  readonly telemetry: { readonly log: Log; readonly metrics: Metrics }
  readonly http: {
    /** Where callers reach the API, for the OpenAPI document. */
    readonly publicUrl: string | null
    /** Addresses or CIDRs of proxies whose `X-Forwarded-For` is believed. */
    readonly trustProxy: readonly string[]
  }
}

/** Node's own default, stated: a bearer token is at most 8 KiB, and the rest is little. More is 431. */
const MAX_HEADER_BYTES = 16_384

/** Bodies of one resource. Routes that take more, or less, say so themselves. */
const BODY_LIMIT_BYTES = 65_536

/** Builds the server with all its routes. */
export const buildServer = (deps: ApiDeps): FastifyInstance => {
  const { log, metrics } = deps.telemetry
  const renderError = createErrorHandler({ log })
  const app = Fastify({
    // Requests are metered, not logged; failures are logged by the error handler.
    logger: false,
    bodyLimit: BODY_LIMIT_BYTES,
    genReqId: createRequestIds(),
    // A path cannot be longer than the headers, so ids are judged by their own rule, after authentication.
    routerOptions: { maxParamLength: MAX_HEADER_BYTES },
    trustProxy: deps.http.trustProxy.length === 0 ? false : [...deps.http.trustProxy],
    // A request has 10 s to arrive whole, its headers 5 s; looked after each second (Node's default is 30 s).
    requestTimeout: 10_000,
    http: { headersTimeout: 5_000, connectionsCheckingInterval: 1_000, maxHeaderSize: MAX_HEADER_BYTES },
    // Longer than the longest held answer (30 s); idle connections outlive a load balancer's 60 s.
    connectionTimeout: 60_000,
    keepAliveTimeout: 72_000,
    forceCloseConnections: 'idle',
    // What arrives on an open connection while we stop is still answered, in our shape.
    return503OnClosing: false,
    clientErrorHandler: answerClientError,
    frameworkErrors: (error, request, reply) => {
      stampAnswer(request, reply)
      renderError(error, request, reply)
    },
  })
  for (const method of METHODS) {
    // Unusual methods on a known path are 405 like any other. CONNECT never reaches the router.
    if (method !== 'CONNECT' && !app.supportedMethods.includes(method)) app.addHttpMethod(method)
  }
  app.setValidatorCompiler(validatorCompiler)
  app.setSerializerCompiler(serializerCompiler)
  app.setErrorHandler(renderError)
  app.removeAllContentTypeParsers()
  // JSON whatever it is called, as with ZITADEL: no cookie is ever honoured, so no content type protects anything.
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, bytes: Buffer, done) => {
    try {
      done(null, readJson(bytes))
    } catch (error) {
      done(error as Error)
    }
  })
  app.decorateRequest('caller')
  meterRoutes(app, metrics)
  drainConnections(app)
  app.addHook('onRequest', (request, reply, done) => {
    stampAnswer(request, reply)
    // The router would cut a fragment off, and a proxy before us may have judged the whole (RFC 9112 §3.2 has none).
    const hasFragment = request.raw.url?.includes('#') === true
    done(hasFragment ? new CurfewError('invalid_argument', { says: 'Path must not have a fragment' }) : undefined)
  })
  const allowedMethods = createAllowedMethods(app)
  app.setNotFoundHandler(() => {
    metrics.curfew_http_requests_total.inc({ route: 'none', method: '*', status: '404' })
    throw new CurfewError('route_not_found')
  })

  app.register(async (routes) => {
    await registerOpenApi(routes, { publicUrl: deps.http.publicUrl })
    await routes.register(healthRoutes, deps)
    await routes.register(jwksRoutes, deps)
    await routes.register(async (known) => {
      known.addHook('onRequest', createAuthenticationHook(deps))
      await known.register(endSessionRoutes, deps)
      await known.register(sessionRoutes, deps.sessionRoutes)
      await known.register(receiverRoutes, deps.receivers)
      await known.register(revocationRoutes, { ...deps.revocations, refuseDeadToken: deps.refuseDeadToken })
      await known.register(streamRoutes, { ...deps.stream, refuseDeadToken: deps.refuseDeadToken })
      await known.register(introspectRoute, deps.introspect)
      await known.register(attemptRoutes, deps.attempts)
      await known.register(reportRoute, deps.report)
    })
    await routes.register(openApiRoutes)
    allowedMethods.refuseOthers()
  })
  return app
}

/** On every answer: nothing here may be cached (routes that allow it say so), and the request's id for the log. */
const stampAnswer = (request: FastifyRequest, reply: FastifyReply): void => {
  reply.header('cache-control', 'no-store').header('x-request-id', request.id)
}
