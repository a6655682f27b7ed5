/**
 * Prunes by itself what has had its time: a few bounded steps every few seconds in each worker process, so that tables stay
 * as small as the settings say and nobody notices. A step that fails is logged and tried again; it stops no other.
 */
import { pruneRules } from '../store/cutoff-rules.ts'
import { pruneDeadUses } from '../store/dead-uses.ts'
import { KEPT_SECONDS, pruneIdempotencyKeys } from '../store/idempotency-keys.ts'
import type { Database } from '../store/postgres.ts'
import { BEFORE_ALL, pruneDeliveries, pruneEnded, pruneExpired } from '../store/pruning.ts'
import type { Pruned } from '../store/pruning.ts'
import { BEFORE_ALL_REVOCATIONS, pruneRevocations } from '../store/revocation-pruning.ts'
import type { Log } from '../telemetry.ts'

export interface Pruning {
  start(): Promise<void>
  /** Waits for the step that runs. */
  stop(): Promise<void>
  /** One turn now; for tests, and shared with the timer: two never run at once. Returns how much was removed. */
  turn(): Promise<number>
}

const INTERVAL_MS = 5_000
/** Turns are moved by up to this part of the interval, so that processes started together do not prune together. */
const JITTER = 0.2
/** Steps of one walk in one turn: 100,000 deliveries or 20,000 sessions, faster than any service makes them for long. */
const MAX_STEPS = 20
/** Small rows with few indexes: some milliseconds. */
const ROWS_AT_ONCE = 1_000

/** A step that always begins with the oldest: there may be more for as long as it finds as much as it takes at once. */
const inSteps = (prune: (limit: number) => Promise<number>) => async (): Promise<Pruned> => {
  const removed = await prune(ROWS_AT_ONCE)
  return { removed, next: removed < ROWS_AT_ONCE ? null : '' }
}

export const createPruning = (deps: {
  db: Database
  /** Deliveries stay so long once they are done. */
  deliverySeconds: number
  /** Sessions stay so long once they are over. */
  sessionSeconds: number
  maxTokenLifetimeSeconds: number
  log: Log
  intervalMs?: number
  random?: () => number
}): Pruning => {
  const { db, deliverySeconds, sessionSeconds, maxTokenLifetimeSeconds, log, intervalMs = INTERVAL_MS, random = Math.random } = deps
  let timer: NodeJS.Timeout | null = null
  let running: Promise<number> | null = null
  let stopped = false

  /** One walk through a table, which remembers between turns where it is. */
  const walk = (name: string, begin: string, step: (after: string) => Promise<Pruned>) => {
    let after = begin
    return async (): Promise<number> => {
      let removed = 0
      try {
        for (let steps = 0; steps < MAX_STEPS && !stopped; steps += 1) {
          const pruned = await step(after)
          removed += pruned.removed
          after = pruned.next ?? begin
          if (pruned.next === null) break
        }
      } catch (err) {
        log.warn({ event: 'prune.failed', walk: name, err }, 'A pruning step failed; it is tried again')
      }
      if (removed > 0) log.info({ event: 'prune.removed', walk: name, removed }, 'What had its time was removed')
      return removed
    }
  }

  const walks = [
    walk('deliveries', '0', (after) => pruneDeliveries(db, { after, retentionSeconds: deliverySeconds })),
    walk('ended', '0', (after) => pruneEnded(db, { after, retentionSeconds: sessionSeconds, maxTokenLifetimeSeconds })),
    walk('expired', BEFORE_ALL, (after) => pruneExpired(db, { after, retentionSeconds: sessionSeconds })),
    // An idempotency key leads to its revocation for as long as it is kept.
    walk('revocations', BEFORE_ALL_REVOCATIONS, (after) => pruneRevocations(db, { after, retentionSeconds: Math.max(sessionSeconds, KEPT_SECONDS) })),
    walk('idempotency keys', '', () => pruneIdempotencyKeys(db)),
    walk('rules', '', inSteps((limit) => pruneRules(db, { retentionSeconds: sessionSeconds, limit }))),
    walk('dead uses', '', inSteps((limit) => pruneDeadUses(db, { retentionSeconds: sessionSeconds, limit }))),
  ]

  const turn = (): Promise<number> => {
    running ??= (async () => {
      let removed = 0
      // One after another: pruning is to take no more than one connection.
      for (const next of walks) removed += await next()
      return removed
    })().finally(() => { running = null })
    return running
  }

  const schedule = (): void => {
    timer = setTimeout(() => {
      void turn().then(() => {
        if (timer !== null) schedule()
      })
    }, intervalMs * (1 - JITTER + 2 * JITTER * random()))
  }

  return {
    turn,
    start: async () => {
      if (timer === null) schedule()
    },
    stop: async () => {
      stopped = true
      if (timer !== null) clearTimeout(timer)
      timer = null
      await running
    },
  }
}
