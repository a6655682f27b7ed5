/**
 * Counts and times answers by route pattern. Each route gets its own hook with its counters already looked up,
 * so that a request pays for two increments and no label hashing.
 */
import type { FastifyInstance, onResponseHookHandler } from 'fastify'
import type { Counter } from 'prom-client'
import type { Metrics } from '../telemetry.ts'

type HttpMetrics = Pick<Metrics, 'curfew_http_requests_total' | 'curfew_http_request_seconds'>

/** Meters every route that is registered after this call. A route of several methods is counted under `*`. */
export const meterRoutes = (app: FastifyInstance, metrics: HttpMetrics): void => {
  app.addHook('onRoute', (route) => {
    const method = typeof route.method === 'string' ? route.method : '*'
    const seconds = metrics.curfew_http_request_seconds.labels(route.url)
    // At most one entry for each status that the route answers with.
    const byStatus = new Map<number, Counter.Internal>()
    const meter: onResponseHookHandler = (_request, reply, done) => {
      let counter = byStatus.get(reply.statusCode)
      if (counter === undefined) {
        counter = metrics.curfew_http_requests_total.labels(route.url, method, String(reply.statusCode))
        byStatus.set(reply.statusCode, counter)
      }
      counter.inc()
      seconds.observe(reply.elapsedTime / 1_000)
      done()
    }
    const others = route.onResponse ?? []
    route.onResponse = Array.isArray(others) ? [...others, meter] : [others, meter]
  })
}
