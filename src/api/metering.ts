/**
 * Counts and times answers by route pattern. Each route gets its own hook with its counters already looked up, and
 * measures when the answer is handed to the socket: listening for its end costs four times as much as the counting.
 */
import type { FastifyInstance, onSendHookHandler } from 'fastify'
import type { Counter } from 'prom-client'
import type { Metrics } from '../telemetry.ts'
import { withoutExpressions } from './verb-path.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** When it came in, by the clock that never jumps. */
    begunMs: number
  }
}

type HttpMetrics = Pick<Metrics, 'curfew_http_requests_total' | 'curfew_http_request_seconds'>

/** Meters every route that is registered after this call. A route of several methods is counted under `*`. */
export const meterRoutes = (app: FastifyInstance, metrics: HttpMetrics): void => {
  app.decorateRequest('begunMs', 0)
  app.addHook('onRequest', (request, _reply, done) => {
    request.begunMs = performance.now()
    done()
  })
  app.addHook('onRoute', (route) => {
    const method = typeof route.method === 'string' ? route.method : '*'
    const pattern = withoutExpressions(route.url)
    const seconds = metrics.curfew_http_request_seconds.labels(pattern)
    // At most one entry for each status that the route answers with.
    const byStatus = new Map<number, Counter.Internal>()
    const meter: onSendHookHandler = (request, reply, _payload, done) => {
      const { statusCode } = reply
      let counter = byStatus.get(statusCode)
      if (counter === undefined) {
        counter = metrics.curfew_http_requests_total.labels(pattern, method, String(statusCode))
        byStatus.set(statusCode, counter)
      }
      counter.inc()
      seconds.observe((performance.now() - request.begunMs) / 1_000)
      done()
    }
    const others = route.onSend ?? []
    route.onSend = Array.isArray(others) ? [...others, meter] : [others, meter]
  })
}
