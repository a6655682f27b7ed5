/**
 * Whether this process uses the queue at present, or commits by itself.
 *
 *             10 good beats, probe added              the probe came back
 *   away ────────────────────────────────▶ probing ──────────────────────▶ available
 *    ▲                                        │                                │
 *    ├── heartbeat late · could not be added ─┤                                │
 *    ├── unanswered for 2 s ──────────────────┘                                │
 *    └── heartbeat late · a batch could not be added · a batch went unanswered ┘
 *
 * It begins away. The probe is an authenticated batch of no commands: it comes back only if the queue takes jobs, a
 * worker that knows the secret works them off, and its results reach us. One probe of ours waits at most: before the
 * next one is added, the former is taken back. Where probes cannot even be added although the heartbeat is good, the
 * producer's connections are renewed.
 */
import type { Log, Metrics } from '../telemetry.ts'
import type { Producer } from './enqueue.ts'
import type { Heartbeat } from './heartbeat.ts'
import { newJobId } from './jobs.ts'
import type { Results } from './results.ts'

export type LeaveReason = 'late' | 'not_added' | 'unanswered' | 'unheard' | 'stopped'

export interface Availability {
  isAvailable(): boolean
  /** Leaves the queue until a probe has made the whole round trip. */
  leave(reason: LeaveReason): void
  start(): Promise<void>
  stop(): Promise<void>
}

/** Half a second of a Redis that answers: one that is starting or swapping does not flap. */
const GOOD_BEATS = 10
const PROBE_WITHIN_MS = 2_000
/** Probes in a row that could not be added before the producer's connections are thought broken. */
const RENEW_AFTER = 4

export const createAvailability = (deps: {
  heartbeat: Heartbeat
  producer: Pick<Producer, 'addBatch' | 'removeBatch' | 'restore' | 'renew'>
  results: Pick<Results, 'expect' | 'forget'>
  /** Called when the queue has been left; whatever waits there is then this process' own to commit. */
  onLeft: () => void
  metrics: Pick<Metrics, 'curfew_queue_available'>
  log: Log
}): Availability => {
  const { heartbeat, producer, results, onLeft, metrics, log } = deps
  let state: 'away' | 'probing' | 'available' = 'away'
  let goodBeats = 0
  let notAdded = 0
  let probe: { readonly id: string; readonly sinceMs: number } | null = null

  const enter = (next: typeof state) => {
    state = next
    goodBeats = 0
    metrics.curfew_queue_available.set(next === 'available' ? 1 : 0)
  }

  const leave = (reason: LeaveReason) => {
    if (probe !== null) results.forget(probe.id)
    const wasAvailable = state === 'available'
    enter('away')
    if (!wasAvailable) return
    if (reason !== 'stopped') log.warn({ event: 'queue.left', reason }, 'the queue is left; this process commits by itself')
    onLeft()
  }

  const cameBack = () => {
    probe = null
    notAdded = 0
    enter('available')
    log.info({ event: 'queue.available' }, 'the queue is used')
  }

  const sendProbe = async () => {
    const former = probe
    const mine = { id: newJobId(), sinceMs: performance.now() }
    probe = mine
    enter('probing')
    results.expect(mine.id, 0, (answers) => {
      if (probe !== mine || state !== 'probing') return
      // A worker refused it: another secret, perhaps, or a clock far off.
      if (answers === null) leave('unanswered')
      else cameBack()
    })
    try {
      if (former !== null) await producer.removeBatch(former.id)
      await producer.restore()
      await producer.addBatch(mine.id, [])
    } catch {
      // Why it could not be added is of no interest here: the queue does not take jobs, so it stays left.
      if (probe !== mine || state !== 'probing') return
      leave('not_added')
      notAdded += 1
      if (notAdded % RENEW_AFTER === 0) producer.renew()
    }
  }

  const onGood = () => {
    if (state === 'probing' && probe !== null && performance.now() - probe.sinceMs > PROBE_WITHIN_MS) leave('unanswered')
    if (state !== 'away') return
    goodBeats += 1
    if (goodBeats >= GOOD_BEATS) void sendProbe()
  }

  return {
    isAvailable: () => state === 'available',
    leave,
    start: () => heartbeat.start({ onGood, onLate: () => leave('late') }),
    stop: async () => {
      await heartbeat.stop()
      if (state !== 'available' && probe !== null) await producer.removeBatch(probe.id)
      leave('stopped')
    },
  }
}
