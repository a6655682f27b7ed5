/**
 * Watching revocations: one poller reads all that anybody watches in one query per round, however many watch, and only
 * while someone does. Rounds never overlap; a failed read is made up for by the next.
 *
 * It also knows how fast they go: for each revocation that is watched it keeps what it read in the last ten seconds.
 */
import type { ListedRevocation } from '../store/revocation-list.ts'

export interface RevocationWatchDeps {
  /** Revocations by their ids; those that there are not are left out. */
  readonly readRevocations: (ids: readonly string[]) => Promise<readonly ListedRevocation[]>
}

/** Null: not known yet. */
export interface Pace {
  /** Sessions ended per second. */
  readonly rate: number | null
  /** Deliveries settled per second. */
  readonly deliveryRate: number | null
  /** Until all sessions that were expected have been met, at this rate; null too where they were more than could be counted. */
  readonly secondsLeft: number | null
}

export interface Sight extends Pace {
  readonly revocation: ListedRevocation
}

export interface Watcher {
  readonly onSight: (sight: Sight) => void
  /** The server stops. */
  readonly onStop: () => void
}

export interface RevocationWatch {
  /** Calls back with each read until left; null where too many watch already, or the server stops. */
  watch(id: string, watcher: Watcher): { leave(): void } | null
  watchers(): number
  /** Lets everybody go. */
  stop(): void
}

/** A few reads a second are no load, and no eye sees more. */
const ROUND_MS = 250
/** Each is a connection that is held. */
export const MAX_WATCHERS = 500
const WINDOW_MS = 10_000
/** Shorter than that, a rate is noise. */
const LEAST_MS = 900

interface Sample {
  readonly atMs: number
  readonly terminated: number
  readonly matched: number
  readonly told: number
}

interface Watched {
  samples: Sample[]
  readonly watchers: Set<Watcher>
}

export const createRevocationWatch = ({ readRevocations }: RevocationWatchDeps): RevocationWatch => {
  const watched = new Map<string, Watched>()
  let count = 0
  let timer: NodeJS.Timeout | null = null
  let reading = false
  let stopped = false

  const read = async (): Promise<void> => {
    reading = true
    try {
      const found = await readRevocations([...watched.keys()])
      for (const revocation of found) {
        const of = watched.get(revocation.id)
        if (of === undefined) continue
        const sight = { revocation, ...paceOf(of, revocation) }
        for (const { onSight } of of.watchers) onSight(sight)
      }
    } catch {
      // Postgres away: the next round asks again.
    } finally {
      reading = false
    }
  }

  const round = (): void => {
    if (watched.size > 0 && !reading) void read()
  }

  return {
    watch: (id, { onSight, onStop }) => {
      if (stopped || count >= MAX_WATCHERS) return null
      // Its own object: the same callbacks may watch twice.
      const watcher = { onSight, onStop }
      const of = watched.get(id) ?? { samples: [], watchers: new Set() }
      watched.set(id, of)
      of.watchers.add(watcher)
      count += 1
      timer ??= setInterval(round, ROUND_MS)
      round()
      return {
        leave: () => {
          if (!of.watchers.delete(watcher)) return
          count -= 1
          if (of.watchers.size === 0) watched.delete(id)
          if (count > 0 || timer === null) return
          clearInterval(timer)
          timer = null
        },
      }
    },
    watchers: () => count,
    stop: () => {
      stopped = true
      for (const { watchers } of watched.values()) for (const { onStop } of watchers) onStop()
    },
  }
}

/** Notes what was read, and says how fast it has gone since the oldest that is remembered. */
const paceOf = (of: Watched, { state, matched, terminated, expected, expectedExact, deliveries }: ListedRevocation): Pace => {
  const atMs = performance.now()
  const sample = { atMs, matched: Number(matched), terminated: Number(terminated), told: Number(deliveries.total) - Number(deliveries.pending) }
  of.samples = [...of.samples.filter((one) => one.atMs >= atMs - WINDOW_MS), sample]
  const [first = sample] = of.samples
  const seconds = (atMs - first.atMs) / 1_000
  const over = state === 'done' || state === 'cancelled'
  if (seconds * 1_000 < LEAST_MS) return { rate: null, deliveryRate: null, secondsLeft: over ? 0 : null }
  const perSecond = (before: number, now: number): number => Math.max(0, Math.round((now - before) / seconds))
  const met = (sample.matched - first.matched) / seconds
  const left = Math.max(0, Number(expected) - sample.matched)
  const secondsLeft = over ? 0 : met <= 0 || !expectedExact ? null : Math.ceil(left / met)
  return { rate: perSecond(first.terminated, sample.terminated), deliveryRate: perSecond(first.told, sample.told), secondsLeft }
}
