/**
 * Upkeep: a timer in each worker process that finds in Postgres what a lost wake-up, a dead process or an absent Redis has
 * left behind. It is no lane, so that a lost Redis cannot lose it.
 *
 * Every step is idempotent and skips what others hold, so processes need not agree on who does it. A step that
 * fails is logged and tried again at the next tick; neither it nor one that takes long stops the others.
 */
import { LRUCache } from 'lru-cache'
import type { Database } from '../store/postgres.ts'
import { countPending, readDueReceivers, readOldestCommits, settleStranded } from '../store/stranded.ts'
import type { Log, Metrics } from '../telemetry.ts'

const INTERVAL_MS = 1_000
/** Ticks are moved by up to this part of the interval, so that processes started together do not look together. */
const JITTER = 0.2
/** A commit that waits longer has lost its wake-up. */
const UNROUTED_SECONDS = 1
/** Receivers looked at by one tick; the next goes on behind them. */
const RECEIVERS_AT_ONCE = 500
/** For how long a wake-up is remembered, to see whether it helped; and of how many receivers. */
const WOKEN_MS = 30_000
const MAX_WOKEN = 10_000
/** Counting and settling are for those who watch: every fifth tick is soon enough. */
const SLOW_EVERY = 5
const SETTLED_AT_ONCE = 5_000

export interface Upkeep {
  start(): Promise<void>
  /** Waits for the steps that run. */
  stop(): Promise<void>
  /** One tick now, for tests: no step runs twice at once. Resolves when its steps have ended. */
  tick(): Promise<void>
}

export const createUpkeep = (deps: {
  db: Database
  route: () => Promise<void>
  /** Has what revocations ended handed on in this process, soon. */
  wakeRevocations: () => void
  /** Wakes a drain through the queue; best effort. */
  wakeReceiver: (receiverId: string) => void
  /** Drains a receiver in this process. */
  deliver: (receiverId: string) => Promise<void>
  /** What waits in each lane. */
  depth: () => Promise<readonly { lane: string; waiting: number; oldestSeconds: number }[]>
  /** Applies the cache channel to commits that were not enforced. */
  enforcePending: () => Promise<unknown>
  /** Makes the second deletion of cache keys where it is due. */
  enforceAgain: () => Promise<unknown>
  /** Keeps the stream whole, fresh and within its bounds; returns soon also where that takes longer. */
  keepStream: () => Promise<unknown>
  /** Goes on with revocations that run, wherever they were left, without waiting for them. */
  takeUpRevocations: () => Promise<unknown>
  /** Has plans made anew that a sudden growth has made bad. */
  refreshPlans: () => Promise<unknown>
  horizonSeconds: number
  metrics: Metrics
  log: Log
  intervalMs?: number
  random?: () => number
}): Upkeep => {
  const { db, metrics, log, horizonSeconds, intervalMs = INTERVAL_MS, random = Math.random } = deps
  let timer: NodeJS.Timeout | null = null
  /** Steps under way, by name. */
  const running = new Map<string, Promise<void>>()
  let ticks = 0
  let after = ''
  const woken = new LRUCache<string, true>({ max: MAX_WOKEN, ttl: WOKEN_MS })

  const route = async (): Promise<void> => {
    const { unroutedSeconds, revocationsUnroutedSeconds, unenforcedSeconds } = await readOldestCommits(db)
    metrics.curfew_unrouted_oldest_seconds.set(Math.max(unroutedSeconds, revocationsUnroutedSeconds))
    metrics.curfew_unenforced_oldest_seconds.set(unenforcedSeconds)
    // Not awaited: it goes on for as long as there is something, and steering and ends are found there.
    deps.wakeRevocations()
    if (unroutedSeconds >= UNROUTED_SECONDS) await deps.route()
  }

  const wakeDue = async (): Promise<void> => {
    const { ids, next } = await readDueReceivers(db, { after, limit: RECEIVERS_AT_ONCE })
    after = next ?? ''
    for (const id of ids) {
      // Woken before and still due: the queue is away or behind, so this process drains it by itself. Not awaited: a
      // drain lasts as long as it lasts, bounds itself and never rejects.
      if (woken.delete(id)) void deps.deliver(id)
      else {
        woken.set(id, true)
        deps.wakeReceiver(id)
      }
    }
  }

  const settle = async (): Promise<void> => {
    const settled = await settleStranded(db, { horizonSeconds, limit: SETTLED_AT_ONCE })
    if (settled > 0) log.info({ event: 'upkeep.settled', deliveries: settled }, 'Deliveries past their time were settled')
  }

  const measure = async (): Promise<void> => {
    for (const { lane, waiting, oldestSeconds } of await deps.depth()) {
      metrics.curfew_queue_depth.set({ lane }, waiting)
      metrics.curfew_queue_oldest_seconds.set({ lane }, oldestSeconds)
    }
  }

  const count = async (): Promise<void> => metrics.curfew_deliveries_pending.set(await countPending(db))

  /** Runs a step, but one that runs already not a second time: a slow one holds up no other, and no tick. */
  const step = (name: string, work: () => Promise<unknown>): Promise<void> => {
    const started = running.get(name) ?? work().then(
      () => undefined,
      (err: unknown) => log.warn({ event: 'upkeep.step_failed', step: name, err }, 'An upkeep step failed; it is tried again at the next tick'),
    ).finally(() => running.delete(name))
    running.set(name, started)
    return started
  }

  const tick = async (): Promise<void> => {
    const slow = ticks % SLOW_EVERY === 0
    ticks += 1
    await Promise.all([
      step('route', route),
      step('wake', wakeDue),
      step('enforce', deps.enforcePending),
      step('enforce_again', deps.enforceAgain),
      step('stream', deps.keepStream),
      step('revocations', deps.takeUpRevocations),
      ...(slow ? [step('settle', settle), step('plans', deps.refreshPlans), step('count', count), step('measure', measure)] : []),
    ])
  }

  const schedule = (): void => {
    timer = setTimeout(() => {
      void tick()
      schedule()
    }, intervalMs * (1 - JITTER + 2 * JITTER * random()))
  }

  return {
    tick,
    start: async () => {
      if (timer === null) schedule()
    },
    stop: async () => {
      if (timer !== null) clearTimeout(timer)
      timer = null
      await Promise.all(running.values())
    },
  }
}
