/**
 * The line: where a command waits until it is known to be committed. One in each API process.
 *
 * What arrives while two batches are under way is gathered into the next (500 at most); an idle line sends at once.
 * While few wait (fewer than `queueFrom`) this process commits them by itself: a hop through the queue costs a batch
 * more than its commit, and only pays where there is more than one process can commit. From there on batches go to the
 * workers through the queue, until a quarter of that waits: a flood that goes both ways costs more than either. While that cannot be used (Redis away, frozen or slow, workers dead), this process commits
 * all of them by itself, and nobody waits for the queue to return. It is the same code in every case, and an answer is
 * a committed row: the worker's authenticated result, a reading, or our own commit.
 *
 * Commands that someone else's lock keeps from being committed (`busy`) are asked again, with a growing pause, in
 * batches of their own, so that they delay nobody.
 */
import { CurfewError } from '../errors.ts'
import type { TerminateAnswer, TerminateCommand } from '../model.ts'
import { createGather } from '../store/gather.ts'
import type { Log, Metrics } from '../telemetry.ts'
import { createAvailability } from './availability.ts'
import { createBatches } from './batches.ts'
import type { Producer } from './enqueue.ts'
import { createFallback } from './fallback.ts'
import type { Heartbeat } from './heartbeat.ts'
import { createLater } from './later.ts'
import type { Results } from './results.ts'
import { createWaiting } from './waiting.ts'
import type { Ask } from './waiting.ts'

export interface Line {
  /**
   * Resolves when the command is known to be committed, or known to change nothing (`before`, `unknown`).
   * Asking again is always safe.
   *
   * @throws CurfewError overloaded (more than `maxWaiting` wait), not_committed_in_time (after `commitWaitMs`; it may
   * be committed yet), unavailable (nothing can be committed at present).
   */
  ask(command: TerminateCommand): Promise<TerminateAnswer>
  waiting(): number
  /** False while this process commits by itself. */
  available(): boolean
  start(): Promise<void>
  /** Takes no more, waits for those who wait (`stopWithinMs` at most), tells the others that it is not known. */
  stop(): Promise<void>
}

export interface LineDeps {
  readonly kind: 'redis' | 'postgres'
  readonly producer: Producer
  readonly results: Results
  /** Watches the store: `createHeartbeat` for Redis, `createTicks` for Postgres. */
  readonly heartbeat: Heartbeat
  /** The termination code itself, in this process. May throw. */
  readonly commit: (commands: readonly TerminateCommand[]) => Promise<readonly TerminateAnswer[]>
  readonly readTerminated: (commands: readonly TerminateCommand[]) => Promise<readonly (TerminateAnswer | null)[]>
  readonly maxWaiting: number
  /** Commands that wait, from which on the queue is used; 1 sends all of them through it. */
  readonly queueFrom: number
  readonly commitWaitMs: number
  readonly stopWithinMs?: number
  readonly metrics: Pick<Metrics, 'curfew_terminations_total' | 'curfew_committed_seconds' | 'curfew_waiting' | 'curfew_queue_available'>
  readonly log: Log
}

/** A bigger batch holds its rows longer and answers its first later; measured, 128 is slower. */
const BATCH_AT_MOST = 500
/** One more while one travels: with more, batches only get smaller. Measured. */
const BATCHES_IN_FLIGHT = 2
/** The part of `queueFrom` below which a flood is over. */
const SUBSIDED = 0.25
const SWEEP_EVERY_MS = 20
const BUSY_MS = { first: 10, longest: 200 } as const
const STOP_WITHIN_MS = 5_000

type Via = 'queue' | 'read' | 'self'

export const createLine = (deps: LineDeps): Line => {
  const { kind, producer, results, heartbeat, commit, readTerminated, maxWaiting, queueFrom, commitWaitMs, metrics, log } = deps
  const waiting = createWaiting()
  const matters = (ask: Ask) => !ask.settled
  let stopping = false
  let flooded = false
  let sweeper: NodeJS.Timeout | undefined

  const onAnswers = (asks: readonly Ask[], answers: readonly (TerminateAnswer | null)[], via: Via) => {
    const now = performance.now()
    const counts = { ended: 0, before: 0, unknown: 0, busy: 0 }
    const busy: Ask[] = []
    asks.forEach((ask, at) => {
      const answer = answers[at] ?? null
      if (answer === null || ask.settled) return
      const { outcome } = answer
      counts[outcome] += 1
      if (outcome === 'busy') {
        busy.push(ask)
        return
      }
      if (outcome !== 'unknown') metrics.curfew_committed_seconds.observe((now - ask.sinceMs) / 1_000)
      waiting.answer(ask, answer)
    })
    for (const outcome of ['ended', 'before', 'unknown'] as const) {
      if (counts[outcome] > 0) metrics.curfew_terminations_total.inc({ outcome, via }, counts[outcome])
    }
    if (busy.length > 0) askAgain(busy)
  }

  const askAgain = (asks: readonly Ask[]) => {
    const byPause = new Map<number, Ask[]>()
    for (const ask of asks) {
      ask.busy += 1
      const pauseMs = Math.min(BUSY_MS.longest, BUSY_MS.first * 2 ** Math.min(ask.busy - 1, 5))
      const group = byPause.get(pauseMs)
      if (group === undefined) byPause.set(pauseMs, [ask])
      else group.push(ask)
    }
    for (const [pauseMs, group] of byPause) paused.add(pauseMs, group)
  }

  const fallback = createFallback({ commit, readTerminated, onAnswers, fail: waiting.fail, log })
  const leave: typeof availability.leave = (reason) => availability.leave(reason)
  const batches = createBatches({ kind, producer, results, fallback, onAnswers, leave })

  // One batch each, by whichever way is open; they resolve when the next may begin.
  const send = async (asks: Ask[]): Promise<void> => {
    if (availability.isAvailable()) await batches.send(asks)
    else fallback.commit(asks)
  }
  const sendApart = (asks: Ask[]): Promise<void> => (availability.isAvailable() ? batches.send(asks) : fallback.commitApart(asks))
  const incoming = createGather<Ask>({ atMost: BATCH_AT_MOST, inFlight: BATCHES_IN_FLIGHT, matters, run: send })
  const again = createGather<Ask>({ atMost: BATCH_AT_MOST, inFlight: 1, matters, run: sendApart })
  const paused = createLater<Ask>((asks) => again.pushAll(asks))

  const availability = createAvailability({
    heartbeat,
    producer,
    results,
    onLeft: () => fallback.commit([...batches.takeAll(), ...incoming.takeAll()]),
    metrics,
    log,
  })

  const isFlood = (): boolean => {
    if (waiting.size() >= queueFrom) flooded = true
    else if (waiting.size() < queueFrom * SUBSIDED) flooded = false
    return flooded
  }

  const failLate = (sinceMs: number) => waiting.failOlderThan(sinceMs, () => new CurfewError('not_committed_in_time'))

  const sweep = () => {
    const now = performance.now()
    batches.sweep(now)
    failLate(now - commitWaitMs)
    metrics.curfew_waiting.set(waiting.size())
    if (waiting.size() > 0) return
    clearInterval(sweeper)
    sweeper = undefined
  }

  return {
    ask: (command) => {
      if (stopping || waiting.size() >= maxWaiting) return Promise.reject(new CurfewError('overloaded'))
      const { ask, promise } = waiting.add(command, performance.now())
      if (isFlood() && availability.isAvailable()) incoming.push(ask)
      else fallback.commit([ask])
      sweeper ??= setInterval(sweep, SWEEP_EVERY_MS)
      return promise
    },
    waiting: waiting.size,
    available: availability.isAvailable,
    start: availability.start,
    stop: async () => {
      stopping = true
      const endMs = performance.now() + (deps.stopWithinMs ?? STOP_WITHIN_MS)
      while (waiting.size() > 0 && performance.now() < endMs) await new Promise((resolve) => setTimeout(resolve, SWEEP_EVERY_MS))
      await availability.stop()
      failLate(Infinity)
      fallback.stop()
      paused.clear()
      clearInterval(sweeper)
      sweeper = undefined
      metrics.curfew_waiting.set(0)
    },
  }
}
