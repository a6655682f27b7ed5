/**
 * What became of the batches: BullMQ's events of the interactive lane, turned into authenticated answers.
 *
 * A result counts only if someone here waits for that very job, its keyed hash fits, and it answers each command.
 * Anything else is ignored and counted; it neither answers nor ends the waiting (G1). A failed job is told as such:
 * whoever asked then reads Postgres. Events can be missed; so nothing may rely on them alone.
 */
import type { TerminateAnswer } from '../model.ts'
import type { Log, Metrics } from '../telemetry.ts'
import type { LaneEvents, Open, QueueBackend } from './backend.ts'
import { JobRefused, createSeals } from './jobs.ts'
import type { QueueSecrets, RefusedReason } from './jobs.ts'
import { createSeldom } from './seldom.ts'
import { within } from './within.ts'

/** Told once: the answers in the commands' order, or null where the job failed. */
export type Settle = (answers: readonly TerminateAnswer[] | null) => void

export interface Results {
  /** Begins to listen for a job, which must not have been added yet. */
  expect(jobId: string, count: number, settle: Settle): void
  forget(jobId: string): void
  start(): Promise<void>
  stop(): Promise<void>
}

const REOPEN_AFTER_MS = 500
const STOP_WITHIN_MS = 1_000
/** Answered ids that are remembered to tell a replay from the results of other processes. */
const ANSWERED_KEPT = 1_000

interface Completed {
  readonly jobId: string
  readonly returnvalue: unknown
}

export const createResults = (deps: {
  backend: QueueBackend
  secrets: QueueSecrets
  metrics: Pick<Metrics, 'curfew_jobs_refused_total'>
  log: Log
}): Results => {
  const { backend, secrets, metrics, log } = deps
  const seals = createSeals({ secrets })
  const seldom = createSeldom(log)
  const expected = new Map<string, { count: number; settle: Settle }>()
  const answered = new Set<string>()
  let events: Open<LaneEvents> | null = null
  let stopped = true
  let reopening: NodeJS.Timeout | undefined

  const refuse = (reason: RefusedReason) => {
    metrics.curfew_jobs_refused_total.inc({ lane: 'interactive', reason })
    seldom.warn({ event: 'queue.result_refused', reason }, 'a result was ignored: it did not come from one of our workers')
  }

  const remember = (jobId: string) => {
    answered.add(jobId)
    if (answered.size <= ANSWERED_KEPT) return
    for (const oldest of answered) {
      answered.delete(oldest)
      return
    }
  }

  const onCompleted = ({ jobId, returnvalue }: Completed) => {
    const waiting = expected.get(jobId)
    if (waiting === undefined) {
      if (answered.has(jobId)) refuse('replayed')
      return
    }
    let answers: TerminateAnswer[]
    try {
      answers = seals.openAnswers(jobId, returnvalue, waiting.count)
    } catch (error) {
      if (!(error instanceof JobRefused)) throw error
      refuse(error.reason)
      return
    }
    expected.delete(jobId)
    remember(jobId)
    waiting.settle(answers)
  }

  const onFailed = ({ jobId }: { jobId: string }) => {
    const waiting = expected.get(jobId)
    if (waiting === undefined) return
    expected.delete(jobId)
    waiting.settle(null)
  }

  const close = async ({ it, cut }: Open<LaneEvents>) => {
    // However that went, nothing of it is open after the cut.
    await within(it.close(), STOP_WITHIN_MS, 'closing the results').catch(() => undefined)
    cut()
  }

  /** Reads until stopped. An event that cannot be parsed ends BullMQ's reader, so it is replaced by a new one. */
  const read = () => {
    const current = backend.openEvents('interactive')
    events = current
    current.it.on('completed', onCompleted)
    current.it.on('failed', onFailed)
    const again = (error: unknown) => {
      if (stopped || events !== current) return
      seldom.error({ event: 'queue.results_interrupted', err: error }, 'the reader of results ended and is replaced')
      events = null
      void close(current)
      reopening = setTimeout(read, REOPEN_AFTER_MS)
    }
    current.it.run().then(again, again)
  }

  return {
    expect: (jobId, count, settle) => void expected.set(jobId, { count, settle }),
    forget: (jobId) => void expected.delete(jobId),
    start: async () => {
      if (!stopped) return
      stopped = false
      read()
    },
    stop: async () => {
      stopped = true
      clearTimeout(reopening)
      const current = events
      events = null
      if (current !== null) await close(current)
    },
  }
}
