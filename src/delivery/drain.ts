/**
 * One drain of one receiver, from the lease to its end: reads what is due ahead of the sending, sends as many at once as
 * the receiver and the process allow, and records outcomes in batches.
 *
 * It ends when nothing is due any more, when the breaker opens, when the receiver was changed, when a slow
 * receiver finds no slot free, when the lease is lost, or when the process stops. What it leaves is due in Postgres.
 */
import { performance } from 'node:perf_hooks'
import type { DrainHealth, DrainedReceiver, DueDelivery } from '../store/drains.ts'
import type { Send } from './attempt.ts'
import type { Breaker } from './breaker.ts'
import { mootOutcome } from './outcome.ts'
import type { Outcome } from './outcome.ts'
import { OVERDUE_MS } from './pace.ts'
import type { ReceiverPace } from './pace.ts'
import type { Ahead, ReadAhead } from './read-ahead.ts'
import type { Recorder } from './recorder.ts'
import type { Slot, Slots } from './slots.ts'

/** `empty`: nothing is due. `changed`: the receiver is another now. The rest leave work that is found again later. */
export type DrainEnd = 'empty' | 'changed' | 'broken' | 'no_slot' | 'yielded' | 'stopped'

/** Outcomes gathered before they are written. */
const RECORD_AT = 100
/** The longest that an outcome waits to be written: callers wait for it (`Prefer: wait`). */
const RECORD_WITHIN_MS = 50
/** The same while more is waiting to be sent: nobody waits for one of many, and a write for a few costs as much as for many. */
const RECORD_BUSY_WITHIN_MS = 250
/** Outcomes not yet written with which sending goes on: more would be told again after a crash. */
const MAX_UNRECORDED = 1_000

export interface DrainDeps {
  readonly receiver: DrainedReceiver
  readonly ahead: ReadAhead
  readonly send: Send
  readonly slots: Slots
  readonly pace: ReceiverPace
  readonly breaker: Breaker
  readonly recorder: Recorder
  readonly leaseMs: number
  /** True where others wait for this drain's place. It leaves it to them where it has no log-out to tell of. */
  readonly isWanted: () => boolean
  /** Aborted when the process stops: nothing more is sent, what is in flight is recorded. */
  readonly signal: AbortSignal
  /** The receiver turned out to be slow; whoever waits for this drain need not. */
  readonly onSlow: () => void
  readonly onOutcome: (outcome: Outcome, delivery: DueDelivery, readAtMs: number) => void
}

/** What of the receiver's health is not yet written. */
export interface HealthSigns {
  readonly succeeded: boolean
  readonly failed: boolean
  readonly gone: boolean
}

export const healthOf = (breaker: Breaker, signs: HealthSigns): DrainHealth => ({
  consecutiveFailures: breaker.consecutiveFailures(),
  brokenForMs: breaker.openForMs(),
  ...signs,
})

/** Runs to the drain's end. Rejects only where reading fails; what is in flight is then recorded first. */
export const runDrain = async (deps: DrainDeps): Promise<DrainEnd> => {
  const { receiver, ahead, send, slots, pace, breaker, recorder, leaseMs, isWanted, signal, onSlow, onOutcome } = deps
  let inFlight = 0
  let reading = false
  let failure: { error: unknown } | null = null
  let end: DrainEnd | null = null
  let waitingForSlot: (() => void) | null = null
  let granted: Slot | null = null
  let notBeforeMs = 0
  let rateTimer: NodeJS.Timeout | null = null
  let wake = (): void => {}

  const finish = (why: DrainEnd): void => { end ??= why }

  const read = async (): Promise<void> => {
    reading = true
    try {
      for (const delivery of await ahead.read(pace.limit())) recorder.add(mootOutcome(delivery))
    } catch (error) {
      failure = { error }
    }
    reading = false
    wake()
  }

  /** Writes under way: the clock may ask for one while a full batch is still being written. */
  let flushes = 0
  let flushTimer: NodeJS.Timeout | null = null
  const flush = async (): Promise<void> => {
    if (flushTimer !== null) clearTimeout(flushTimer)
    flushTimer = null
    flushes += 1
    const good = await recorder.flush()
    if (!good) finish('changed')
    flushes -= 1
    wake()
  }

  const launch = async (slot: Slot, { delivery, readAtMs }: Ahead): Promise<void> => {
    inFlight += 1
    const startedMs = performance.now()
    const overdue = setTimeout(() => {
      pace.overdue()
      slot.setAside()
      onSlow()
      wake()
    }, OVERDUE_MS)
    const outcome = await send(delivery, receiver)
    clearTimeout(overdue)
    slot.release()
    inFlight -= 1
    if (outcome.sign === 'answered') {
      breaker.answered()
      pace.answered(performance.now() - startedMs)
    } else {
      breaker.failed(outcome.retryAfterMs)
      pace.failed()
    }
    if (breaker.isOpen()) finish('broken')
    if (outcome.gone) finish('changed')
    onOutcome(outcome, delivery, readAtMs)
    recorder.add(outcome.recorded)
    flushTimer ??= setTimeout(() => void flush(), ahead.waiting() > 0 ? RECORD_BUSY_WITHIN_MS : RECORD_WITHIN_MS)
    wake()
  }

  /** A slot now, or null; a quick receiver then stands in line, any other ends where it has nothing in flight. */
  const takeSlot = (): Slot | null => {
    if (granted !== null) {
      const slot = granted
      granted = null
      if (pace.pace() === 'quick') return slot
      slot.release()
    }
    if (waitingForSlot !== null) return null
    const slot = slots.tryTake(pace.pace())
    if (slot !== null) return slot
    if (pace.pace() === 'quick') {
      waitingForSlot = slots.wait('quick', (given) => {
        waitingForSlot = null
        granted = given
        wake()
      })
    } else if (inFlight === 0) finish('no_slot')
    return null
  }

  const goesOn = (): boolean => end === null && failure === null

  const mayLaunch = (): boolean =>
    goesOn() && ahead.waiting() > 0 && inFlight < (breaker.probing() ? 1 : pace.limit()) && recorder.waiting() < MAX_UNRECORDED

  const launchAll = (): void => {
    while (mayLaunch()) {
      const waitMs = notBeforeMs - performance.now()
      if (waitMs > 0) {
        rateTimer ??= setTimeout(() => {
          rateTimer = null
          wake()
        }, waitMs)
        return
      }
      const slot = takeSlot()
      if (slot === null) return
      const next = ahead.next()
      if (next === undefined) return slot.release()
      if (receiver.ratePerSecond !== null) notBeforeMs = Math.max(performance.now(), notBeforeMs) + 1_000 / receiver.ratePerSecond
      void launch(slot, next)
    }
  }

  const heartbeat = setInterval(() => void flush(), leaseMs / 3)
  const onAbort = (): void => wake()
  signal.addEventListener('abort', onAbort)
  try {
    for (;;) {
      const changed = new Promise<void>((resolve) => { wake = resolve })
      if (signal.aborted || !recorder.holds()) finish('stopped')
      if (ahead.holdsNoLogOut() && isWanted()) finish('yielded')
      if (goesOn() && !reading && ahead.wantsMore(pace.limit())) void read()
      launchAll()
      const idle = inFlight === 0 && !reading
      if (flushes === 0 && (recorder.waiting() >= RECORD_AT || (idle && recorder.waiting() > 0 && (ahead.waiting() === 0 || !goesOn())))) void flush()
      if (idle && flushes === 0 && recorder.waiting() === 0) {
        if (ahead.isEmpty()) finish('empty')
        if (!goesOn()) break
      }
      await changed
    }
  } finally {
    signal.removeEventListener('abort', onAbort)
    clearInterval(heartbeat)
    if (rateTimer !== null) clearTimeout(rateTimer)
    if (flushTimer !== null) clearTimeout(flushTimer)
    ;(waitingForSlot as (() => void) | null)?.()
    ;(granted as Slot | null)?.release()
  }
  if (failure !== null) throw (failure as { error: unknown }).error
  return end ?? 'empty'
}
