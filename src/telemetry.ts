/**
 * Logs and metrics: made once in `service.ts` and handed down.
 *
 * Logs are JSON lines, one event name with fields (`log.info({ event: 'queue.away' }, 'sentence')`). Errors are logged by
 * name, message and SQLSTATE alone, because drivers put whole commands into their errors. The README's metrics
 * table is checked against `metricNames`.
 */
import { pino } from 'pino'
import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from 'prom-client'

/** Name, kind, labels and meaning of every metric of ours. */
export const metricTable = {
  curfew_http_requests_total: { kind: 'counter', labels: ['route', 'method', 'status'], help: 'Requests answered, by route pattern.' },
  curfew_http_request_seconds: { kind: 'histogram', labels: ['route'], help: 'Seconds from a request to its answer, by route pattern.' },
  curfew_terminations_total: { kind: 'counter', labels: ['outcome', 'via'], help: 'Answered commands by outcome (ended, before, unknown) and by how the answer was learnt (queue, read, self).' },
  curfew_committed_seconds: { kind: 'histogram', labels: [], help: 'First clock: seconds from asking to knowing that the termination is committed.' },
  curfew_enforced_seconds: { kind: 'histogram', labels: [], help: 'Second clock: seconds from commit until caches were told.' },
  curfew_acknowledged_seconds: { kind: 'histogram', labels: ['channel'], help: 'Third clock: seconds from commit until a receiver acknowledged.' },
  curfew_waiting: { kind: 'gauge', labels: [], help: 'Commands that this API process holds and has not answered.' },
  curfew_queue_available: { kind: 'gauge', labels: [], help: '1 while this API process uses the queue, 0 while it commits by itself.' },
  curfew_queue_depth: { kind: 'gauge', labels: ['lane'], help: 'Jobs that wait in a lane.' },
  curfew_queue_oldest_seconds: { kind: 'gauge', labels: ['lane'], help: 'Age of the oldest job that waits in a lane.' },
  curfew_jobs_refused_total: { kind: 'counter', labels: ['lane', 'reason'], help: 'Jobs and results set aside because they did not authenticate, were too old or of an unknown version.' },
  curfew_deliveries_total: { kind: 'counter', labels: ['channel', 'outcome'], help: 'Delivery attempts by what came of them.' },
  curfew_delivery_seconds: { kind: 'histogram', labels: ['channel'], help: 'Seconds of one delivery attempt.' },
  curfew_deliveries_pending: { kind: 'gauge', labels: [], help: 'Deliveries not yet acknowledged, moot or failed, read from Postgres.' },
  curfew_unrouted_oldest_seconds: { kind: 'gauge', labels: [], help: 'Age of the oldest commit whose deliveries are not yet planned, read from Postgres.' },
  curfew_unenforced_oldest_seconds: { kind: 'gauge', labels: [], help: 'Age of the oldest commit that caches were not yet told of, read from Postgres.' },
} as const satisfies Record<string, { kind: 'counter' | 'gauge' | 'histogram'; labels: readonly string[]; help: string }>

type Table = typeof metricTable
type MetricOf<Kind> = Kind extends 'counter' ? Counter : Kind extends 'gauge' ? Gauge : Histogram
export type Metrics = { readonly [Name in keyof Table]: MetricOf<Table[Name]['kind']> }

const latencyBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600, 3_600, 86_400]

const createMetrics = (registry: Registry): Metrics => {
  const made: Record<string, Counter | Gauge | Histogram> = {}
  for (const [name, { kind, labels, help }] of Object.entries(metricTable)) {
    const base = { name, help, labelNames: [...labels], registers: [registry] }
    if (kind === 'counter') made[name] = new Counter(base)
    else if (kind === 'gauge') made[name] = new Gauge(base)
    else made[name] = new Histogram({ ...base, buckets: latencyBuckets })
  }
  return made as unknown as Metrics
}

/** What of an error may be logged: never a driver's command, parameters or a response body. */
const describeError = (error: unknown): Record<string, unknown> => {
  if (!(error instanceof Error)) return { message: String(error).slice(0, 200) }
  const { code } = error as { code?: unknown }
  return {
    type: error.name,
    message: error.message.slice(0, 300),
    ...(typeof code === 'string' ? { code } : {}),
    ...(error.cause === undefined ? {} : { cause: describeError(error.cause) }),
    stack: error.stack?.split('\n').slice(1, 6).map((line) => line.trim()),
  }
}

/** One logger and one metrics registry for the process. `write` replaces standard output, for tests. */
export const createTelemetry = (options: { level: string; write?: (line: string) => void }) => {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  const settings = { level: options.level, base: null, serializers: { err: describeError } }
  const log = options.write === undefined ? pino(settings) : pino(settings, { write: options.write })
  return { log, metrics: createMetrics(registry), registry }
}

export type Telemetry = ReturnType<typeof createTelemetry>
export type Log = Telemetry['log']
