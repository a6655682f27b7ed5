/**
 * The engine of revocations: goes on with one until it is done, paused or cancelled, chunk by chunk, pass by pass.
 *
 * All that it knows is in Postgres, so it may be run for the same revocation by many processes at once, be killed
 * anywhere, and be begun again by anyone: each chunk is a transaction of its own (`store/revocation-chunk.ts`). What a
 * pass could not end, because somebody held it, the next pass meets again; done is what was proven to have nothing left
 * (`store/revocation-proof.ts`).
 */
import { setMaxListeners } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'
import type { EndedSession } from '../model.ts'
import type { Database } from '../store/postgres.ts'
import { endChunk } from '../store/revocation-chunk.ts'
import { readRunning, recordEnforced } from '../store/revocation-clocks.ts'
import { isNoneLeft, readWriters, stillWriting } from '../store/revocation-proof.ts'
import { beginNextPass, beginPasses, cutSlice, finishRevocation, readRun } from '../store/revocation-slices.ts'
import type { RevocationRun } from '../store/revocation-slices.ts'
import { chooseWalk, walkOf } from '../store/revocation-walk.ts'
import type { Walk } from '../store/revocation-walk.ts'
import type { Log } from '../telemetry.ts'
import type { Pace } from './revoke-pace.ts'
import { createSizes } from './revoke-size.ts'

export interface Revoke {
  /** Goes on with a revocation, which may be over or unknown, until it is done or steered away. Safe to repeat. */
  advance(revocationId: string): Promise<void>
  /** Takes up every revocation that runs, without waiting for them, and sets second clocks. For upkeep. */
  takeUp(): Promise<void>
  /** Waits for the chunks under way. */
  stop(): Promise<void>
}

/** Entries of one slice: some seconds of work for one of those who share it. */
const SLICE_ENTRIES = 50_000
/** Entries that one statement of the proof looks at: milliseconds beside log-outs. */
const PROOF_ENTRIES = { alone: 20_000, beside: 2_500 } as const
/** Sessions that somebody holds are met again after so long, and twice as long each time. */
const HELD_MS = { first: 100, most: 10_000 } as const
/** Nothing to take, because others are at it. */
const OTHERS_MS = 100
const WRITERS_MS = { first: 10, most: 250 } as const
/** A revocation's second clock is looked at so often after its end; then it is upkeep's. */
const ENFORCED_LOOKS = { times: 10, everyMs: 60 } as const

export interface RevokeDeps {
  /** A pool of its own, whose statements may take longer than a log-out's. */
  readonly db: Database
  readonly pace: Pace
  /** Tells the local channels of a chunk. Never rejects: what fails is upkeep's. */
  readonly enforce: (commitId: string, ended: readonly EndedSession[]) => Promise<void>
  /** Up to which version cutoff rules are on the stream; null: there is none. */
  readonly readRuleOnStream: () => Promise<bigint | null>
  readonly wakeRoute: () => void
  /** Aborted when the process stops: the chunk under way is the last, and others go on. */
  readonly signal: AbortSignal
  readonly log: Log
}

export const createRevoke = (deps: RevokeDeps): Revoke => {
  const { db, pace, enforce, readRuleOnStream, wakeRoute, signal, log } = deps
  const underWay = new Map<string, { again: boolean; ends: Promise<void> }>()
  let proving: Promise<unknown> = Promise.resolve()
  // Each revocation under way may listen.
  setMaxListeners(0, signal)
  const rest = (ms: number): Promise<unknown> => pause(ms, undefined, { signal }).catch(() => undefined)

  /** One after another, chunks of whichever slice is free; returns how many. */
  const workAt = async (revocationId: string, run: RevocationRun, walk: Walk): Promise<number> => {
    const sizes = createSizes()
    let short = false
    let open = 0
    let chunks = 0
    let workers = 0

    const cut = async () => {
      while (!short && open < pace.atOnce()) {
        const outcome = await cutSlice(db, { revocationId, walk, entries: SLICE_ENTRIES })
        if (outcome === 'held') return
        if (outcome === 'short') short = true
        else open += 1
      }
    }

    const work = async (helps: boolean): Promise<void> => {
      workers += 1
      const helpers: Promise<void>[] = []
      let enforcing: Promise<void> = Promise.resolve()
      try {
        while (!signal.aborted && !(helps && workers > pace.atOnce())) {
          const { chunk, large } = await pace.turn(async (beside) => {
            const size = sizes.size(beside)
            const sinceMs = performance.now()
            const ended = await endChunk(db, { revocationId, scope: run.scope, walk, ...size })
            sizes.learn(beside, size, ended, performance.now() - sinceMs)
            return { chunk: ended, large: ended.entries === size.entries }
          }, signal)
          if (chunk.slice === null) break
          chunks += 1
          open = chunk.open
          if (chunk.commitId !== null) {
            wakeRoute()
            await enforcing
            enforcing = enforce(chunk.commitId, chunk.ended)
          }
          if (!large && open === 0) break
          if (pace.atOnce() === 1 || !large) continue
          await cut()
          if (!helps && open > 0 && workers < pace.atOnce()) {
            const helper = work(true)
            // Awaited below, perhaps long after it has failed.
            helper.catch(() => undefined)
            helpers.push(helper)
          }
        }
      } finally {
        workers -= 1
        await enforcing
        await Promise.all(helpers)
      }
    }

    await work(false)
    return chunks
  }

  /** Waits until everyone who may be writing sessions now has ended. */
  const outlastWriters = async () => {
    let waitMs: number = WRITERS_MS.first
    for (let writers = await readWriters(db); writers.length > 0 && !signal.aborted; writers = await stillWriting(db, writers)) {
      await rest(waitMs)
      waitMs = Math.min(2 * waitMs, WRITERS_MS.most)
    }
  }

  const prove = async (revocationId: string, run: RevocationRun, walk: Walk): Promise<boolean | undefined> => {
    // Who is named is there, or is not meant.
    if (walk.kind !== 'ids') {
      // Whom a rule kills is not registered any more; else the last who are meant are born up to the cutoff.
      if (run.containment === 'rows' && run.untilCutoffMs > 0) await rest(Math.ceil(run.untilCutoffMs))
      await outlastWriters()
    }
    let entries: number = PROOF_ENTRIES.alone
    return isNoneLeft(db, {
      revocationId,
      scope: run.scope,
      walk,
      most: () => entries,
      turn: async (work) => {
        await pace.turn(async (beside) => {
          entries = PROOF_ENTRIES[beside ? 'beside' : 'alone']
          await work()
        }, signal)
        return !signal.aborted
      },
      alone: (work) => {
        const mine = proving.then(work)
        proving = mine.catch(() => undefined)
        return mine
      },
    })
  }

  const finish = async (revocationId: string, pass: number) => {
    if (!(await finishRevocation(db, revocationId, pass))) return
    log.info({ event: 'revocation.done', revocationId, passes: pass + 1 }, 'a revocation has ended all that it means')
    wakeRoute()
    try {
      for (let looks = 0; looks < ENFORCED_LOOKS.times && !signal.aborted; looks += 1) {
        if ((await recordEnforced(db, { revocationId, ruleOnStream: await readRuleOnStream() })) > 0) {
          // Who is told of the end is told with all clocks.
          wakeRoute()
          return
        }
        await rest(ENFORCED_LOOKS.everyMs)
      }
    } catch (err) {
      log.warn({ event: 'revocation.clock_unset', revocationId, err }, 'when a revocation was enforced could not be recorded; upkeep will')
    }
  }

  const goOn = async (revocationId: string): Promise<void> => {
    let heldMs: number = HELD_MS.first
    while (!signal.aborted) {
      const run = await readRun(db, revocationId)
      if (run === null || run.state !== 'running') return
      if (run.pass === 0) {
        await beginPasses(db, revocationId, await chooseWalk(db, run.scope))
        continue
      }
      if (run.walks === null) return finish(revocationId, run.pass)
      const walk = await walkOf(db, run.scope, run.walks)
      // Chosen by a version that has other walks: nothing is said to be done that was not looked at.
      if (walk === null) throw new Error(`A revocation walks ${run.walks}, which is not known here`)
      if (run.open > 0) {
        if ((await workAt(revocationId, run, walk)) === 0) await rest(OTHERS_MS)
        continue
      }
      const none = run.missed > 0 ? false : await prove(revocationId, run, walk)
      if (none === true) return finish(revocationId, run.pass)
      await rest(none === undefined ? OTHERS_MS : heldMs)
      if (none === undefined) continue
      heldMs = Math.min(2 * heldMs, HELD_MS.most)
      await beginNextPass(db, revocationId, run.pass)
    }
  }

  const advance = (revocationId: string): Promise<void> => {
    const known = underWay.get(revocationId)
    if (known !== undefined) {
      // Steered or told of anew while it was about to end: it looks once more.
      known.again = true
      return known.ends
    }
    const entry = { again: false, ends: Promise.resolve() }
    entry.ends = (async () => {
      do {
        entry.again = false
        await goOn(revocationId)
      } while (entry.again && !signal.aborted)
    })().finally(() => underWay.delete(revocationId))
    underWay.set(revocationId, entry)
    return entry.ends
  }

  return {
    advance,
    takeUp: async () => {
      for (const id of await readRunning(db, [...underWay.keys()])) {
        void advance(id).catch((err: unknown) => log.warn({ event: 'revocation.failed', revocationId: id, err }, 'a revocation could not be gone on with; upkeep repeats it'))
      }
      await recordEnforced(db, { revocationId: null, ruleOnStream: await readRuleOnStream() })
    },
    stop: async () => {
      await Promise.allSettled([...underWay.values()].map(({ ends }) => ends))
    },
  }
}
