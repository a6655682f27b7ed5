/**
 * The only producer of jobs.
 *
 * A batch is added under the id it was sealed for; adding may fail with an unknown outcome, and then the caller commits
 * by itself: a job that was added after all changes nothing.
 *
 * A wake-up is best effort (upkeep finds what it misses) and collapses with those that came before it: while one of the
 * same id waits, another is not added; while one runs, one more is kept and runs after it (BullMQ's deduplication with
 * `keepLastIfActive`), so that whatever was written before the wake-up is looked at after it. A process adds the first
 * at once and those that follow within 25 ms as one: under a flood every commit wakes the router.
 */
import { setTimeout as pause } from 'node:timers/promises'
import type { TerminateCommand } from '../model.ts'
import type { Log } from '../telemetry.ts'
import type { LaneQueue, Open, QueueBackend } from './backend.ts'
import { createSeals } from './jobs.ts'
import type { QueueSecrets } from './jobs.ts'
import { EVENTS_KEPT, laneNames } from './lanes.ts'
import type { LaneName, WakeLane } from './lanes.ts'
import { createSeldom } from './seldom.ts'
import { wakeKey, wakePayload } from './wake.ts'
import { within } from './within.ts'

/** Redis answers within a millisecond or is not there; Postgres may be busy with a flush. */
const ADD_WITHIN_MS = { redis: 500, postgres: 1_000 } as const
const STOP_WITHIN_MS = 1_000
/** Ids whose wake-up is being added at once: more than receivers, by far. Beyond it, upkeep. */
const WAKES_UNDER_WAY = 10_000
const WAKE_EVERY_MS = 25

export interface LaneDepth {
  readonly lane: LaneName
  readonly waiting: number
  /** Age of the oldest job that waits; 0 where none does. */
  readonly oldestSeconds: number
}

export interface Producer {
  /** Adds a batch under a new id. Rejects within a bound, and then it may have been added or not. */
  addBatch(jobId: string, commands: readonly TerminateCommand[]): Promise<void>
  /** Takes back a batch that no worker has begun. Best effort, never rejects. */
  removeBatch(jobId: string): Promise<void>
  /** Never throws and never waits. */
  wake(lane: WakeLane, id: string): void
  depth(): Promise<LaneDepth[]>
  /** Writes the lanes' settings again, which a Redis that lost its data has lost too. */
  restore(): Promise<void>
  /** Throws its connections away and makes new ones. */
  renew(): void
  start(): Promise<void>
  stop(): Promise<void>
}

type Queues = Readonly<Record<LaneName, Open<LaneQueue>>>

export const createProducer = (deps: { backend: QueueBackend; secrets: QueueSecrets; log: Log }): Producer => {
  const { backend, secrets, log } = deps
  const seals = createSeals({ secrets })
  const seldom = createSeldom(log)
  const addWithinMs = ADD_WITHIN_MS[backend.kind]
  const wakesUnderWay = new Map<string, { again: boolean }>()
  let queues: Queues | null = null

  const openAll = (): Queues => ({
    interactive: backend.openQueue('interactive'),
    bulk: backend.openQueue('bulk'),
    route: backend.openQueue('route'),
    deliver: backend.openQueue('deliver'),
  })
  const queueOf = (lane: LaneName): LaneQueue => {
    if (queues === null) throw new Error('the producer is not running')
    return queues[lane].it
  }

  const closeAll = async (old: Queues) => {
    const all = laneNames.map((lane) => old[lane])
    await Promise.allSettled(all.map(({ it }) => within(it.close(), STOP_WITHIN_MS, 'closing a lane')))
    for (const { cut } of all) cut()
  }

  const addWake = async (lane: WakeLane, id: string, key: string) => {
    const state = { again: false }
    wakesUnderWay.set(key, state)
    try {
      do {
        state.again = false
        const added = queueOf(lane).add('wake', wakePayload(id), { deduplication: { id: key, keepLastIfActive: true } })
        await within(added, addWithinMs, 'adding a wake-up')
        await pause(WAKE_EVERY_MS)
      } while (state.again && queues !== null)
    } catch (error) {
      seldom.warn({ event: 'queue.wake_lost', lane, err: error }, 'a wake-up was not added; upkeep will find the work')
    } finally {
      wakesUnderWay.delete(key)
    }
  }

  const depthOf = async (lane: LaneName): Promise<LaneDepth> => {
    const queue = queueOf(lane)
    const [{ waiting = 0 }, [oldest]] = await Promise.all([queue.getJobCounts('waiting'), queue.getJobs(['waiting'], 0, 0, true)])
    return { lane, waiting, oldestSeconds: oldest === undefined ? 0 : Math.max(0, (Date.now() - oldest.timestamp) / 1_000) }
  }

  return {
    addBatch: async (jobId, commands) => {
      const added = queueOf('interactive').add('batch', seals.sealBatch(jobId, commands), { jobId })
      await within(added, addWithinMs, 'adding a batch')
    },
    removeBatch: async (jobId) => {
      try {
        await within(queueOf('interactive').remove(jobId), addWithinMs, 'removing a batch')
      } catch (error) {
        seldom.warn({ event: 'queue.remove_failed', err: error }, 'a batch could not be taken back; it will change nothing')
      }
    },
    wake: (lane, id) => {
      const key = wakeKey(lane, id)
      const underWay = wakesUnderWay.get(key)
      if (underWay !== undefined) underWay.again = true
      else if (wakesUnderWay.size < WAKES_UNDER_WAY) void addWake(lane, id, key)
    },
    depth: async () => within(Promise.all(laneNames.map(depthOf)), 2_000, 'measuring the lanes'),
    restore: async () => {
      const written = laneNames.map((lane) => queueOf(lane).getBackend().setQueueMeta({ 'opts.maxLenEvents': EVENTS_KEPT }))
      await within(Promise.all(written), addWithinMs, 'restoring the lanes')
    },
    renew: () => {
      if (queues === null) return
      const old = queues
      queues = openAll()
      void closeAll(old)
    },
    start: async () => {
      queues ??= openAll()
    },
    stop: async () => {
      const old = queues
      queues = null
      if (old !== null) await closeAll(old)
    },
  }
}
