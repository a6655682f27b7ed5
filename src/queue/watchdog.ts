/**
 * Finds workers that got stuck: BullMQ's have been known to sit on a healthy connection after a reconnect while jobs
 * wait. Stuck is one that runs nothing, has run nothing for ten seconds, and twice in a row sees jobs wait.
 */
import type { LaneWorker } from './backend.ts'
import type { LaneName } from './lanes.ts'
import { within } from './within.ts'

const LOOK_EVERY_MS = 5_000
const IDLE_MS = 10_000
const COUNT_WITHIN_MS = 1_000

interface Activity {
  running: number
  lastMs: number
  suspicions: number
}

export interface Watchdog {
  /** Wraps the run of one job. */
  during<T>(lane: LaneName, run: () => Promise<T>): Promise<T>
  start(): void
  stop(): void
}

export const createWatchdog = (deps: {
  workers: () => readonly { lane: LaneName; worker: LaneWorker }[]
  onStuck: (lane: LaneName) => void
  lookEveryMs?: number
  idleMs?: number
}): Watchdog => {
  const { workers, onStuck, lookEveryMs = LOOK_EVERY_MS, idleMs = IDLE_MS } = deps
  const activities = new Map<LaneName, Activity>()
  let timer: NodeJS.Timeout | undefined

  const activityOf = (lane: LaneName): Activity => {
    const known = activities.get(lane) ?? { running: 0, lastMs: performance.now(), suspicions: 0 }
    activities.set(lane, known)
    return known
  }

  const look = async (lane: LaneName, worker: LaneWorker) => {
    const activity = activityOf(lane)
    if (activity.running > 0 || performance.now() - activity.lastMs < idleMs) {
      activity.suspicions = 0
      return
    }
    // A store that cannot be asked is away, and its worker not to blame.
    const counts = await within(worker.getBackend().getCounts(['wait']), COUNT_WITHIN_MS, 'counting').catch(() => [0])
    activity.suspicions = (counts[0] ?? 0) > 0 ? activity.suspicions + 1 : 0
    if (activity.suspicions < 2) return
    activity.suspicions = 0
    activity.lastMs = performance.now()
    onStuck(lane)
  }

  return {
    during: async (lane, run) => {
      const activity = activityOf(lane)
      activity.running += 1
      try {
        return await run()
      } finally {
        activity.running -= 1
        activity.lastMs = performance.now()
      }
    },
    start: () => {
      timer ??= setInterval(() => {
        for (const { lane, worker } of workers()) void look(lane, worker)
      }, lookEveryMs)
    },
    stop: () => {
      clearInterval(timer)
      timer = undefined
    },
  }
}
