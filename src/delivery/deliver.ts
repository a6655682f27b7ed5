/**
 * The deliver lane: drains one receiver at a time and looks again after it has finished. Postgres is the queue of record; a
 * wake-up only says where to look, so one that is lost, late or doubled changes nothing.
 *
 * A receiver is drained by one process at a time (its lease). A receiver that turns out to be slow does not hold up
 * whoever called: the call returns and the drain goes on by itself, within the slots of the slow.
 */
import { randomUUID } from 'node:crypto'
import { setMaxListeners } from 'node:events'
import { performance } from 'node:perf_hooks'
import { setTimeout as wait } from 'node:timers/promises'
import { LRUCache } from 'lru-cache'
import type { RemoteChannel } from '../channels/channel.ts'
import { readDue, recordOutcomes, releaseDrain, takeDrain } from '../store/drains.ts'
import type { DrainedReceiver } from '../store/drains.ts'
import type { Database } from '../store/postgres.ts'
import type { Log, Metrics } from '../telemetry.ts'
import { createSend } from './attempt.ts'
import { createBreaker } from './breaker.ts'
import type { BreakerPolicy } from './breaker.ts'
import { healthOf, runDrain } from './drain.ts'
import type { DrainEnd, HealthSigns } from './drain.ts'
import { createAddressPolicy } from './address.ts'
import { createConnect } from './door.ts'
import { createDoor } from './http.ts'
import { createResolve } from './resolve.ts'
import type { Resolve } from './resolve.ts'
import { createPace } from './pace.ts'
import { createReadAhead } from './read-ahead.ts'
import { createRecorder } from './recorder.ts'
import type { RetryPolicy } from './retry.ts'
import { createSlots } from './slots.ts'
import type { Pace } from './slots.ts'

/** Long against a pause of the process, short against the time that a crash may delay a delivery. */
const LEASE_MS = 15_000
/** Drains in this process: each holds at most some hundreds of deliveries in memory. One more is left to a later look. */
const MAX_DRAINS = 200
/** A drain of a revocation's backlog leaves its place after so long, where there is none left for others, and for so long. */
const TURN_MS = 2_000
/** Receivers whose pace is remembered between drains; a forgotten one is judged by its row. */
const MAX_KNOWN = 10_000

/** How a drain ended, and how long the receiver rests before the next. */
interface Drained {
  readonly end: DrainEnd | 'not_taken'
  readonly restMs: number
}

const noSigns: HealthSigns = { succeeded: false, failed: false, gone: false }

export interface Deliver {
  /**
   * Tells a receiver what is due. Settles when nothing is due any more, or when the receiver proves slow. May be repeated
   * and called for one receiver from everywhere at once. Never rejects: what it leaves is found again.
   */
  deliver(receiverId: string): Promise<void>
  start(): Promise<void>
  /** Sends nothing more, waits for what is in flight (at most the time limit of an attempt) and records it. */
  stop(): Promise<void>
}

export const createDeliver = (deps: {
  db: Database
  /** By receiver type. */
  channels: Readonly<Record<string, RemoteChannel>>
  /** CIDRs of private networks that may be told. */
  allowPrivateReceivers: readonly string[]
  /** Milliseconds for one attempt in all. */
  timeoutMs: number
  /** How names are looked up; by default DNS, without the thread pool. */
  resolve?: Resolve
  metrics: Metrics
  log: Log
  concurrency: number
  horizonSeconds: number
  leaseMs?: number
  /** For tests. */
  maxDrains?: number
  turnMs?: number
  retry?: RetryPolicy
  breaker?: BreakerPolicy
  random?: () => number
}): Deliver => {
  const { db, channels, timeoutMs, metrics, log, horizonSeconds, leaseMs = LEASE_MS, maxDrains = MAX_DRAINS, turnMs = TURN_MS, random = Math.random } = deps
  const slots = createSlots(deps.concurrency)
  const connect = createConnect({ policy: createAddressPolicy(deps.allowPrivateReceivers), resolve: deps.resolve ?? createResolve() })
  const door = createDoor({ connect, timeoutMs, now: Date.now })
  const send = createSend({ channels, door, metrics, log, random, ...(deps.retry === undefined ? {} : { retry: deps.retry }) })
  const known = new LRUCache<string, Pace>({ max: MAX_KNOWN })
  const yielded = new LRUCache<string, true>({ max: MAX_KNOWN, ttl: turnMs })
  const drains = new Map<string, { again: boolean; ended: Promise<void> }>()
  const stopping = new AbortController()
  setMaxListeners(MAX_DRAINS, stopping.signal)

  const paceOf = (receiver: DrainedReceiver): Pace => {
    const remembered = known.get(receiver.id)
    if (remembered !== undefined) return remembered
    if (receiver.consecutiveFailures === 0) return receiver.succeededBefore ? 'quick' : 'unproven'
    return receiver.succeededBefore ? 'unproven' : 'slow'
  }

  const drainOnce = async (receiverId: string, onSlow: () => void): Promise<Drained> => {
    const holder = randomUUID()
    const receiver = await takeDrain(db, { receiverId, holder, leaseMs })
    if (receiver === null) return { end: 'not_taken', restMs: 0 }
    const breaker = createBreaker({
      consecutiveFailures: receiver.consecutiveFailures, random, ...(deps.breaker === undefined ? {} : { policy: deps.breaker }),
    })
    const pace = createPace({ maxConcurrency: receiver.maxConcurrency, known: paceOf(receiver) })
    const ahead = createReadAhead({ readDue: (asked) => readDue(db, { receiverId, forWebhook: receiver.type === 'webhook', ...asked }) })
    let signs = noSigns
    let sentAtMs = Number.NEGATIVE_INFINITY
    const beganAtMs = performance.now()
    const recorder = createRecorder({
      leaseMs,
      signal: stopping.signal,
      write: async (outcomes) => {
        const written = signs
        const recorded = await recordOutcomes(db, {
          receiverId, holder, version: receiver.version, leaseMs, horizonSeconds, health: healthOf(breaker, written), outcomes,
        })
        if (signs === written) signs = noSigns
        ahead.done(outcomes.map(({ id }) => id))
        return recorded
      },
      onFailure: (err) => log.warn({ event: 'delivery.not_recorded', receiver: receiverId, err }, 'Outcomes could not be recorded yet'),
    })
    const restMs = (): number =>
      receiver.ratePerSecond === null ? 0 : Math.max(0, sentAtMs + 1_000 / receiver.ratePerSecond - performance.now())
    try {
      const end = await runDrain({
        receiver, ahead, slots, pace, breaker, recorder, leaseMs, onSlow,
        isWanted: () => drains.size >= maxDrains && performance.now() - beganAtMs >= turnMs,
        send: (delivery, to) => {
          sentAtMs = performance.now()
          return send(delivery, to)
        },
        signal: stopping.signal,
        onOutcome: (outcome, delivery, readAtMs) => {
          if (outcome.delivered) {
            const seconds = (delivery.ageMs + performance.now() - readAtMs) / 1_000
            metrics.curfew_acknowledged_seconds.observe({ channel: receiver.type }, seconds)
          }
          signs = {
            succeeded: signs.succeeded || outcome.delivered,
            failed: signs.failed || outcome.sign === 'failed',
            gone: signs.gone || outcome.gone,
          }
          if (outcome.gone) log.warn({ event: 'receiver.gone', receiver: receiverId }, 'A receiver says that it is gone and is switched off')
        },
      })
      return { end, restMs: restMs() }
    } finally {
      known.set(receiverId, pace.pace())
      await releaseDrain(db, { receiverId, holder, restMs: restMs() })
    }
  }

  /** A receiver with a rate of its own rests after a drain; whoever is woken for it meanwhile is not lost, and waits for none. */
  const rest = async (restMs: number, onSlow: () => void): Promise<void> => {
    if (restMs <= 0 || stopping.signal.aborted) return
    onSlow()
    await wait(Math.ceil(restMs), undefined, { signal: stopping.signal }).catch((error: unknown) => {
      if (!stopping.signal.aborted) throw error
    })
  }

  /** Drains until nothing is due and nobody has asked meanwhile. */
  const drainAll = async (receiverId: string, state: { again: boolean }, onSlow: () => void): Promise<void> => {
    let end: Drained['end']
    do {
      state.again = false
      const drained = await drainOnce(receiverId, onSlow)
      end = drained.end
      if (end === 'yielded') yielded.set(receiverId, true)
      await rest(drained.restMs, onSlow)
    } while (!stopping.signal.aborted && (end === 'empty' || end === 'changed' || (end === 'not_taken' && state.again)))
  }

  /** A receiver that is known to need a slow slot is not even looked at while there is none. */
  const hasSlot = (receiverId: string): boolean => {
    const pace = known.get(receiverId) ?? 'quick'
    return pace === 'quick' || slots.free(pace) > 0
  }

  const startDrain = (receiverId: string): Promise<void> =>
    new Promise((resolve) => {
      const state = { again: false, ended: Promise.resolve() }
      drains.set(receiverId, state)
      state.ended = drainAll(receiverId, state, resolve)
        .catch((err: unknown) => log.warn({ event: 'delivery.drain_failed', receiver: receiverId, err }, 'A drain ended early; it is taken up again'))
        .finally(() => {
          drains.delete(receiverId)
          resolve()
        })
    })

  return {
    deliver: async (receiverId) => {
      const running = drains.get(receiverId)
      if (running !== undefined) {
        running.again = true
        return
      }
      if (stopping.signal.aborted || drains.size >= maxDrains || yielded.has(receiverId) || !hasSlot(receiverId)) return
      await startDrain(receiverId)
    },
    start: async () => {},
    stop: async () => {
      stopping.abort()
      await Promise.all([...drains.values()].map(({ ended }) => ended))
      await door.close()
    },
  }
}
