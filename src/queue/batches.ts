/**
 * Batches that are in the queue: added, and not yet answered.
 *
 * A batch holds a place in the line until it is answered, failed or late; a late one keeps listening, but lets the
 * next begin. What happens to it as time goes by, each found by one sweep:
 *
 *   added ──▶ answered by its result
 *     │──▶ failed, or could not be added ──▶ read and committed by ourselves, at once
 *     │──▶ late (500 ms; 100 ms on Postgres, where results get lost): read, again after twice the time, and so on
 *     └──▶ unanswered after 2 s ──▶ committed by ourselves, and the queue is left
 */
import type { TerminateAnswer, TerminateCommand } from '../model.ts'
import { newJobId } from './jobs.ts'
import type { LeaveReason } from './availability.ts'
import type { Producer } from './enqueue.ts'
import type { Fallback } from './fallback.ts'
import type { Results } from './results.ts'
import type { Ask } from './waiting.ts'

interface Batch {
  readonly id: string
  readonly asks: readonly Ask[]
  readonly sinceMs: number
  readMs: number
  /** Frees its place in the line; may be called again. */
  release: () => void
}

export interface Batches {
  /** Adds a batch and resolves when the next may begin. Never rejects. */
  send(asks: readonly Ask[]): Promise<void>
  /** Looks after the late ones. */
  sweep(nowMs: number): void
  /** Gives up every batch and returns who still waits. */
  takeAll(): Ask[]
}

const LATE_AFTER_MS = { redis: 500, postgres: 100 } as const
const COMMIT_AFTER_MS = 2_000

const matters = (ask: Ask) => !ask.settled

export const createBatches = (deps: {
  kind: 'redis' | 'postgres'
  producer: Pick<Producer, 'addBatch'>
  results: Pick<Results, 'expect' | 'forget'>
  fallback: Pick<Fallback, 'read' | 'settle' | 'commit'>
  onAnswers: (asks: readonly Ask[], answers: readonly TerminateAnswer[], via: 'queue') => void
  leave: (reason: LeaveReason) => void
}): Batches => {
  const { kind, producer, results, fallback, onAnswers, leave } = deps
  const lateAfterMs = LATE_AFTER_MS[kind]
  // In the order in which they were sent, so the oldest come first.
  const added = new Map<string, Batch>()

  const drop = (batch: Batch) => {
    added.delete(batch.id)
    results.forget(batch.id)
    batch.release()
  }

  const onResult = (batch: Batch, answers: readonly TerminateAnswer[] | null) => {
    drop(batch)
    if (answers === null) fallback.settle(batch.asks.filter(matters))
    else onAnswers(batch.asks, answers, 'queue')
  }

  const sweepOne = (batch: Batch, nowMs: number) => {
    const ageMs = nowMs - batch.sinceMs
    const waiting = batch.asks.filter(matters)
    if (waiting.length === 0) {
      drop(batch)
      // Committed and read, but its result never came. On Postgres that is known to happen; on Redis the reader of
      // results is broken or far behind, and every batch would wait for its reading.
      if (kind === 'redis') leave('unheard')
    } else if (ageMs >= COMMIT_AFTER_MS) {
      drop(batch)
      fallback.commit(waiting)
      leave('unanswered')
    } else {
      batch.release()
      batch.readMs = nowMs + Math.max(ageMs, lateAfterMs)
      fallback.read(waiting)
    }
  }

  return {
    send: (asks) =>
      new Promise((resolve) => {
        const sinceMs = performance.now()
        const batch: Batch = { id: newJobId(), asks, sinceMs, readMs: sinceMs + lateAfterMs, release: resolve }
        added.set(batch.id, batch)
        results.expect(batch.id, asks.length, (answers) => onResult(batch, answers))
        const commands: TerminateCommand[] = asks.map(({ command }) => command)
        producer.addBatch(batch.id, commands).catch(() => {
          // Why is the producer's to tell. Whether it was added is unknown; committing it twice is as good as once.
          if (added.has(batch.id)) {
            drop(batch)
            fallback.commit(batch.asks.filter(matters))
          }
          leave('not_added')
        })
      }),
    sweep: (nowMs) => {
      for (const batch of added.values()) {
        if (nowMs - batch.sinceMs < lateAfterMs) return
        if (nowMs >= batch.readMs || nowMs - batch.sinceMs >= COMMIT_AFTER_MS || !batch.asks.some(matters)) sweepOne(batch, nowMs)
      }
    },
    takeAll: () => {
      const all = [...added.values()]
      for (const batch of all) drop(batch)
      return all.flatMap(({ asks }) => asks.filter(matters))
    },
  }
}
