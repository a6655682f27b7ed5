/**
 * Upkeep's part of the stream, once a second in each worker: whatever came on it too late or was lost is found in
 * Postgres alone. It notices a Redis that was emptied or restored, writes again what could be missing there, puts new
 * rules on the stream, says how fresh it all is, and removes what has expired. Without Redis only positions remain.
 *
 * Repeat-safe; several workers do the same thing twice, harmlessly, but for writing a Redis again: that one does.
 */
import type { EndedOnTheWire } from '../client/wire.ts'
import type { Restoring, StreamChannel, StreamState } from '../channels/stream.ts'
import type { Database } from '../store/postgres.ts'
import { givePositions, pruneEntries, readRetold, readStreamedUpTo, readTombstones } from '../store/stream.ts'
import type { RetoldPlace, StreamedUpTo } from '../store/stream.ts'
import type { Log } from '../telemetry.ts'
import { announceMissingRules } from './announce-rules.ts'

/** Longer than a commit's transaction can last: what became visible later than its time says is written again too. */
const MARGIN_MS = 60_000
/** Longer than a look takes where nothing is lost. */
const BOUND_MS = 500
/** Entries that get positions or are pruned in one tick: statements of a few thousand rows each. */
const STATEMENTS = 20

export interface KeepStream {
  /** One look, as above. */
  tick(): Promise<void>
}

export const createKeepStream = (deps: {
  db: Database
  /** Null: there is no Redis. */
  stream: StreamChannel | null
  maxSessionLifetimeSeconds: number
  maxTokenLifetimeSeconds: number
  log: Log
}): KeepStream => {
  const { db, stream, maxSessionLifetimeSeconds, maxTokenLifetimeSeconds, log } = deps
  /** Nothing that was committed so long ago can still live. */
  const horizonMs = (maxSessionLifetimeSeconds + maxTokenLifetimeSeconds) * 1_000 + MARGIN_MS

  const writeAgain = async (channel: StreamChannel, restoring: Restoring, sinceMs: number): Promise<boolean> => {
    let before: string | null = null
    let newest: string | null = null
    let sessions = 0
    const put = async (ended: readonly EndedOnTheWire[]) => {
      await restoring.put(ended)
      sessions += ended.reduce((sum, { sessionIds }) => sum + sessionIds.length, 0)
    }
    do {
      const page = await readTombstones(db, { before, sinceMs, maxTokenLifetimeSeconds })
      await put(page.ended)
      newest ??= page.newest
      before = page.next
    } while (before !== null)
    // Of older commits, what was told again since.
    let after: RetoldPlace | null = null
    do {
      const page = await readRetold(db, { sinceMs, after, maxTokenLifetimeSeconds })
      await put(page.ended)
      after = page.next
    } while (after !== null)
    const opened = (await announceMissingRules({ db, stream: channel })) && (await restoring.open(newest))
    log.warn({ event: 'stream.restored', sessions, sinceMs, opened }, 'Redis had lost something; it was written again')
    return opened
  }

  /** True where the stream in Redis is whole, or has been made so. */
  const makeWhole = async (channel: StreamChannel, state: StreamState, streamed: StreamedUpTo): Promise<boolean> => {
    if (state.whole && state.commit >= streamed.commit) return true
    // Where it lacks something without having started anew, what it says of itself is not believed.
    const distrust = state.whole
    const restoring = await channel.restore({ distrust })
    if (restoring === null) return false
    const keptMs = distrust || state.freshDbMs === null ? 0 : state.freshDbMs - MARGIN_MS
    return writeAgain(channel, restoring, Math.max(keptMs, streamed.nowMs - horizonMs))
  }

  const keep = async (channel: StreamChannel): Promise<void> => {
    const sinceMs = performance.now()
    // In this order: what is on it is judged before the Redis is looked at, so a loss in between is noticed.
    const streamed = await readStreamedUpTo(db)
    const state = await channel.state()
    if (!(await makeWhole(channel, state, streamed))) return
    if (!(await announceMissingRules({ db, stream: channel }))) return
    await channel.advance(streamed.freshMs, streamed.nowMs - streamed.freshMs + (performance.now() - sinceMs))
    await channel.prune()
  }

  /** Writing a Redis again can take long, and upkeep has more to do: after a while it goes on without waiting. */
  let keeping: Promise<void> | null = null
  const keepSoon = async (channel: StreamChannel): Promise<void> => {
    keeping ??= keep(channel).finally(() => {
      keeping = null
    })
    // What fails later than that fails again at the next look.
    keeping.catch(() => {})
    let bound: NodeJS.Timeout | undefined
    await Promise.race([keeping, new Promise<void>((resolve) => {
      bound = setTimeout(resolve, BOUND_MS)
    })]).finally(() => clearTimeout(bound))
  }

  const repeat = async (work: () => Promise<number>): Promise<void> => {
    for (let times = 0; times < STATEMENTS; times += 1) if ((await work()) === 0) return
  }

  return {
    tick: async () => {
      await Promise.all([
        stream === null ? undefined : keepSoon(stream),
        repeat(async () => (await givePositions(db)).count).then(() => repeat(() => pruneEntries(db))),
      ])
    },
  }
}
