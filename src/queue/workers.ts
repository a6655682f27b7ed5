/**
 * The workers of this process, one for each lane. They are given their handlers and know nothing of what those do;
 * the handlers know nothing of BullMQ.
 *
 * A job that does not authenticate, is too old or of a version that we do not know is set aside: it fails, is kept
 * for a while and counted, and its handler never sees it. Every handler may see the same payload twice (a worker that
 * was killed, a job that stalled), also at once; they are safe to repeat.
 *
 * What a handler throws stays in our log: a failed job keeps a word of ours, because Redis is not a place for drivers'
 * messages. A failed batch is then committed by the process that asked; a failed wake-up is upkeep's.
 */
import { UnrecoverableError } from 'bullmq'
import type { Job } from 'bullmq'
import type { TerminateAnswer, TerminateCommand } from '../model.ts'
import type { Log, Metrics } from '../telemetry.ts'
import type { LaneWorker, Open, QueueBackend } from './backend.ts'
import { JobRefused, createSeals } from './jobs.ts'
import type { QueueSecrets } from './jobs.ts'
import { laneNames } from './lanes.ts'
import type { LaneName } from './lanes.ts'
import { createSeldom } from './seldom.ts'
import { openWake } from './wake.ts'
import { createWatchdog } from './watchdog.ts'
import { within } from './within.ts'

export interface Handlers {
  /** Commits a batch and answers for each command, in order. Safe to repeat. */
  interactive(commands: readonly TerminateCommand[]): Promise<readonly TerminateAnswer[]>
  /** Goes on with one revocation, which may be over or unknown. Safe to repeat. */
  bulk(revocationId: string): Promise<void>
  /** Hands on whatever is committed and not handed on. Safe to repeat. */
  route(): Promise<void>
  /** Delivers what is due for one receiver, who may not exist. Safe to repeat. */
  deliver(receiverId: string): Promise<void>
}

export interface Workers {
  start(): Promise<void>
  /** Lets what runs finish, within a bound; then cuts the connections. Jobs that were cut are run again elsewhere. */
  stop(): Promise<void>
}

const STOP_WITHIN_MS = 4_000
const REOPEN_AFTER_MS = 500

export const createWorkers = (deps: {
  backend: QueueBackend
  secrets: QueueSecrets
  handlers: Handlers
  stopWithinMs?: number
  metrics: Pick<Metrics, 'curfew_jobs_refused_total'>
  log: Log
}): Workers => {
  const { backend, secrets, handlers, stopWithinMs = STOP_WITHIN_MS, metrics, log } = deps
  const seals = createSeals({ secrets })
  const seldom = createSeldom(log)
  const open = new Map<LaneName, Open<LaneWorker>>()
  const timers = new Map<LaneName, NodeJS.Timeout>()
  let stopped = true

  const processors = {
    interactive: async ({ id = '', data }: Job<unknown>): Promise<unknown> => {
      const batch = seals.openBatch(id, data)
      // A probe: it asks for nothing but to come back.
      if (batch.commands.length === 0) return batch.sealAnswers([])
      return batch.sealAnswers(await handlers.interactive(batch.commands))
    },
    bulk: async ({ data }: Job<unknown>): Promise<unknown> => {
      await handlers.bulk(openWake(data))
      return null
    },
    route: async ({ data }: Job<unknown>): Promise<unknown> => {
      openWake(data)
      await handlers.route()
      return null
    },
    deliver: async ({ data }: Job<unknown>): Promise<unknown> => {
      await handlers.deliver(openWake(data))
      return null
    },
  } as const satisfies Record<LaneName, (job: Job<unknown>) => Promise<unknown>>

  const processorOf = (lane: LaneName) => async (job: Job<unknown>): Promise<unknown> => {
    try {
      return await watchdog.during(lane, () => processors[lane](job))
    } catch (error) {
      if (error instanceof JobRefused) {
        metrics.curfew_jobs_refused_total.inc({ lane, reason: error.reason })
        seldom.warn({ event: 'queue.job_refused', lane, reason: error.reason }, 'a job was set aside and not run')
        throw new UnrecoverableError(error.message)
      }
      seldom.error({ event: 'queue.job_failed', lane, err: error }, 'a job failed')
      throw new UnrecoverableError('failed')
    }
  }

  const close = async ({ it, cut }: Open<LaneWorker>, ms: number) => {
    await within(it.close(), ms, 'closing a worker').catch((error: unknown) =>
      log.warn({ event: 'queue.worker_cut', err: error }, 'a worker did not stop in time and is cut off'),
    )
    cut()
  }

  const run = (lane: LaneName) => {
    const current = backend.openWorker(lane, processorOf(lane))
    open.set(lane, current)
    const again = (error: unknown) => replace(lane, current, error)
    begin(current.it).then(again, again)
  }

  /**
   * BullMQ remembers a first connection to Postgres that failed, and its worker then asks again and again without ever
   * leaving the event loop. So one begins only when its connections stand, and is replaced where they do not.
   */
  const begin = async (worker: LaneWorker): Promise<void> => {
    if (backend.kind === 'postgres') await worker.waitUntilReady()
    await worker.run()
  }

  /** A worker that ended or got stuck is thrown away and another takes its place. */
  const replace = (lane: LaneName, current: Open<LaneWorker>, error: unknown) => {
    if (stopped || open.get(lane) !== current) return
    seldom.error({ event: 'queue.worker_replaced', lane, err: error }, 'a worker ended or got stuck and is replaced')
    open.delete(lane)
    void close(current, 0)
    timers.set(lane, setTimeout(() => run(lane), REOPEN_AFTER_MS))
  }

  const watchdog = createWatchdog({
    workers: () => [...open].map(([lane, { it }]) => ({ lane, worker: it })),
    onStuck: (lane) => {
      const current = open.get(lane)
      if (current !== undefined) replace(lane, current, new Error('jobs wait and none is begun'))
    },
  })

  return {
    start: async () => {
      if (!stopped) return
      stopped = false
      for (const lane of laneNames) run(lane)
      watchdog.start()
    },
    stop: async () => {
      stopped = true
      watchdog.stop()
      for (const timer of timers.values()) clearTimeout(timer)
      const all = [...open.values()]
      open.clear()
      await Promise.all(all.map((one) => close(one, stopWithinMs)))
    },
  }
}
