/**
 * The guard: with it a resource server asks, for each request, whether the session behind a verified token is still
 * good. It answers from memory, without a promise; what it knows comes from a snapshot and then from the stream.
 *
 * What it has learnt it never unlearns before its time, so gaps, duplicates, reordering and lost connections can only
 * make it late, never wrong; and `staleMs` says how late at most. Its user decides what being too late means.
 */
import { createAttempts } from './attempts.ts'
import { createHttpSource } from './http-source.ts'
import type { HttpSourceOptions } from './http-source.ts'
import { createRedisSource } from './redis-source.ts'
import { createRules } from './rules.ts'
import type { Sink, Source } from './source.ts'
import { createSteadyClock } from './steady-clock.ts'
import { createTombstones } from './tombstones.ts'
import type { AttemptOnTheWire, Verdict } from './wire.ts'

/** What a verified token says. Whatever it does not say may be left out: then no rule that names it can match. */
export interface Question {
  /** `iss`. */
  readonly issuer: string
  /** `sid`. */
  readonly sessionId?: string | null | undefined
  /** `sub`. */
  readonly subject?: string | null | undefined
  /** The organization that the subject belongs to. Without it rules for an organization cannot reach the token. */
  readonly organization?: string | null | undefined
  /** `auth_time`, else `iat`: seconds since 1970 as tokens carry them, or a Date. Without it older than every cutoff. */
  readonly born?: number | Date | null | undefined
}

export interface GuardOptions {
  /** Milliseconds of staleness from which `onStale` applies. Without an outage it is about a second. */
  readonly maxStaleMs?: number
  /** `failClosed`: too stale, `check` answers `stale` for what it would call active. `failOpen`: it goes on. */
  readonly onStale?: 'failOpen' | 'failClosed'
  /** How long `createGuard` waits for the first snapshot before it resolves all the same, stale. */
  readonly startWithinMs?: number
  /** Told of each lost connection and each report that failed. Must not throw. */
  readonly onError?: (error: unknown) => void
  /** Takes the batches of refused attempts. Over HTTP they go to Curfew by themselves; null keeps them back. */
  readonly reportAttempts?: ((attempts: readonly AttemptOnTheWire[]) => Promise<void> | void) | null
}

export type GuardSource = { readonly redis: string } | HttpSourceOptions

export interface Guard {
  /**
   * Is it still good? Synchronous; allocates nothing for what is alive. That the guard is too stale it knows within 50 ms, but
   * not while the process is held up: whoever must know to the millisecond reads `staleMs`.
   */
  check(question: Question): Verdict
  /** Everything committed until so many milliseconds ago is known here; Infinity before the first snapshot. */
  readonly staleMs: number
  /** What is held: ended sessions and rules, and the bytes of the former. */
  readonly holds: { readonly tombstones: number; readonly rules: number; readonly bytes: number }
  close(): Promise<void>
}

const MAX_STALE_MS = 10_000
const START_WITHIN_MS = 10_000
/** The staleness that `check` goes by is read so often, so that a check reads no clock. */
const LOOK_EVERY_MS = 50
/** One of 64 shards each second: what has expired is gone about a minute later. */
const SWEEP_EVERY_MS = 1_000
/** Reconnecting: full jitter, from soon to five seconds. */
const BACKOFF_FROM_MS = 100
const BACKOFF_TO_MS = 5_000
/** A connection that held so long was good: the next attempt comes soon. */
const GOOD_AFTER_MS = 10_000
/** Larger numbers cannot be seconds of this millennium's tokens: they are milliseconds. */
const SECONDS_BELOW = 1e11

const bornMsOf = (born: Question['born']): number => {
  if (typeof born === 'number') {
    // NaN compares with nothing, and so would escape every rule.
    if (!(born > 0)) return 0
    return born < SECONDS_BELOW ? born * 1_000 : born
  }
  return born == null ? 0 : born.getTime() || 0
}

/** Makes a guard over any source; `createGuard` knows the two that there are. */
export const createGuardOver = async (source: Source, options: GuardOptions = {}): Promise<Guard> => {
  const { maxStaleMs = MAX_STALE_MS, onStale = 'failClosed', startWithinMs = START_WITHIN_MS, onError = () => {} } = options
  if (!(maxStaleMs > 0)) throw new RangeError('maxStaleMs must be a positive number of milliseconds')
  const tombstones = createTombstones()
  const rules = createRules()
  const clock = createSteadyClock()
  const closing = new AbortController()
  let freshMs = -Infinity
  let isStale = true
  let learntAll: () => void = () => {}

  const readStaleness = () => {
    isStale = performance.now() - freshMs > maxStaleMs
  }
  const sink: Sink = {
    learn: ({ ended = [], rules: added = [] }) => {
      for (const rule of added) rules.add(rule)
      for (const { issuer, sessionIds, expiresMs } of ended) {
        for (let at = 0; at < sessionIds.length; at += 1) tombstones.add(issuer, sessionIds[at] ?? '', expiresMs[at] ?? 0)
      }
    },
    fresh: (asOfMs) => {
      // What has been learnt stays learnt.
      freshMs = Math.max(freshMs, asOfMs)
      readStaleness()
      if (freshMs > -Infinity) learntAll()
    },
  }

  const follow = async () => {
    for (let failures = 0; !closing.signal.aborted; ) {
      const sinceMs = performance.now()
      await source.follow(sink, closing.signal).catch((error: unknown) => {
        if (!closing.signal.aborted) onError(error)
      })
      if (closing.signal.aborted) return
      failures = performance.now() - sinceMs > GOOD_AFTER_MS ? 0 : failures + 1
      await pause(Math.random() * Math.min(BACKOFF_TO_MS, BACKOFF_FROM_MS * 2 ** Math.min(failures, 10)), closing.signal)
    }
  }

  const report = options.reportAttempts === undefined ? source.report : options.reportAttempts
  const attempts = report == null ? null : createAttempts({ report, onError })
  const timers = [
    setInterval(readStaleness, LOOK_EVERY_MS),
    setInterval(() => {
      const nowMs = clock()
      tombstones.sweep(nowMs)
      rules.sweep(nowMs)
    }, SWEEP_EVERY_MS),
  ]
  for (const timer of timers) timer.unref()
  const started = new Promise<void>((resolve) => {
    learntAll = resolve
  })
  const following = follow()
  await Promise.race([started, pause(startWithinMs, closing.signal)])

  // One object for every question to the rules: a check allocates nothing.
  const born = { issuer: '', organization: null as string | null, user: null as string | null, sessionId: null as string | null, bornMs: 0 }
  return {
    check: (question) => {
      const { issuer, sessionId } = question
      if (sessionId != null && tombstones.has(issuer, sessionId)) {
        attempts?.countSession(issuer, sessionId)
        return 'terminated'
      }
      if (rules.size > 0) {
        born.issuer = issuer
        born.organization = question.organization ?? null
        born.user = question.subject ?? null
        born.sessionId = sessionId ?? null
        born.bornMs = bornMsOf(question.born)
        const rule = rules.find(born)
        if (rule !== null) {
          attempts?.countRule(issuer, rule.id)
          return 'cutoff'
        }
      }
      return isStale && onStale === 'failClosed' ? 'stale' : 'active'
    },
    get staleMs() {
      return Math.max(0, performance.now() - freshMs)
    },
    get holds() {
      return { tombstones: tombstones.size, rules: rules.size, bytes: tombstones.bytes }
    },
    close: async () => {
      for (const timer of timers) clearInterval(timer)
      closing.abort()
      await following
      await attempts?.stop()
    },
  }
}

/**
 * Makes a guard and waits for its first snapshot, or for `startWithinMs`; until there is one it is stale. Does not
 * reject because the other side is away, and reconnects for ever.
 *
 * @throws TypeError, RangeError where an option is missing or wrong.
 */
export const createGuard = async (options: GuardSource & GuardOptions): Promise<Guard> => {
  if ('redis' in options && typeof options.redis === 'string') return createGuardOver(createRedisSource({ url: options.redis }), options)
  if ('url' in options && typeof options.url === 'string') return createGuardOver(createHttpSource(options), options)
  throw new TypeError('createGuard needs redis, or url and token')
}

const pause = (ms: number, signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    signal.addEventListener('abort', done)
  })
