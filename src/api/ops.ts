/**
 * The operations port, loopback by default: `/metrics` for Prometheus, and health again for probers that must not
 * reach the API. No authentication: whoever reaches it is an operator.
 */
import Fastify from 'fastify'
import type { FastifyInstance } from 'fastify'
import { serializerCompiler, validatorCompiler } from 'fastify-type-provider-zod'
import type { Log, Telemetry } from '../telemetry.ts'
import { answerClientError } from './client-errors.ts'
import { createErrorHandler } from './render-error.ts'
import { healthRoutes } from './routes/health.ts'
import type { HealthDeps } from './routes/health.ts'
import { CurfewError } from '../errors.ts'

export interface OpsDeps extends HealthDeps {
  readonly registry: Telemetry['registry']
  readonly log: Log
}

/** The server, not listening. */
export const buildOpsServer = ({ registry, log, ready }: OpsDeps): FastifyInstance => {
  const app = Fastify({ logger: false, requestTimeout: 10_000, clientErrorHandler: answerClientError })
  app.setValidatorCompiler(validatorCompiler)
  app.setSerializerCompiler(serializerCompiler)
  app.setErrorHandler(createErrorHandler({ log }))
  app.setNotFoundHandler(() => {
    throw new CurfewError('route_not_found')
  })
  app.register(healthRoutes, { ready })
  app.get('/metrics', async (_request, reply) => {
    const text = await registry.metrics()
    return reply.header('content-type', registry.contentType).send(text)
  })
  return app
}
