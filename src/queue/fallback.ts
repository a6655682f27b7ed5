/**
 * The two ways to an answer that do without the queue: reading what is committed, and committing by ourselves.
 *
 * Postgres is the truth. Reading never guesses: what is not read as terminated stays unanswered. Committing goes
 * through the same termination code as the workers', so doing it after, before or beside one of them changes nothing
 * (G3). Both are coalesced and bounded: two statements of each kind at once, 500 commands each.
 */
import { CurfewError } from '../errors.ts'
import type { TerminateAnswer, TerminateCommand } from '../model.ts'
import { createGather } from '../store/gather.ts'
import { changedNothing } from '../store/postgres-failures.ts'
import type { Log } from '../telemetry.ts'
import { createLater } from './later.ts'
import { createSeldom } from './seldom.ts'
import type { Ask } from './waiting.ts'

export interface Fallback {
  /** Answers those that are committed already; the others are left as they are. */
  read(asks: readonly Ask[]): void
  /** Reads, then commits what was not there. */
  settle(asks: readonly Ask[]): void
  /** Commits them, again and again until they are answered, refused for good, or nobody waits any more. */
  commit(asks: readonly Ask[]): void
  /** The same for one batch that shares its statement with no others. Resolves when it has been tried. */
  commitApart(asks: readonly Ask[]): Promise<void>
  stop(): void
}

export type OnAnswers = (asks: readonly Ask[], answers: readonly (TerminateAnswer | null)[], via: 'read' | 'self') => void

const AT_MOST = 500
const IN_FLIGHT = 2
/** A commit that failed is repeated after this, doubling: short enough for a failover, long enough not to press. */
const REPEAT_MS = { first: 100, longest: 1_000 } as const
/** Failures, the last of which certainly changed nothing, before the caller is told that nothing can be committed. */
const FAILURES_BEFORE_UNAVAILABLE = 3

export const createFallback = (deps: {
  commit: (commands: readonly TerminateCommand[]) => Promise<readonly TerminateAnswer[]>
  readTerminated: (commands: readonly TerminateCommand[]) => Promise<readonly (TerminateAnswer | null)[]>
  onAnswers: OnAnswers
  fail: (ask: Ask, error: Error) => void
  log: Log
}): Fallback => {
  const { commit, readTerminated, onAnswers, fail, log } = deps
  const seldom = createSeldom(log)
  const matters = (ask: Ask) => !ask.settled
  const commandsOf = (asks: readonly Ask[]) => asks.map(({ command }) => command)

  const runRead = async (asks: Ask[]): Promise<void> => {
    try {
      const answers = await readTerminated(commandsOf(asks))
      onAnswers(asks, answers, 'read')
    } catch (error) {
      // Not an answer, so nothing changes for those who wait: the commit comes next.
      seldom.warn({ event: 'queue.read_failed', err: error }, 'reading what is committed failed')
    }
  }

  const runCommit = async (asks: readonly Ask[]): Promise<void> => {
    try {
      const answers = await commit(commandsOf(asks))
      if (answers.length !== asks.length) throw new Error(`${answers.length} answers for ${asks.length} commands`)
      onAnswers(asks, answers, 'self')
    } catch (error) {
      seldom.error({ event: 'queue.commit_failed', commands: asks.length, err: error }, 'a commit by this process failed and is repeated')
      const certain = changedNothing(error)
      const longest = asks.reduce((most, ask) => Math.max(most, (ask.failures += 1)), 0)
      for (const ask of asks) {
        if (certain && ask.failures >= FAILURES_BEFORE_UNAVAILABLE) fail(ask, new CurfewError('unavailable', { cause: error }))
      }
      repeats.add(Math.min(REPEAT_MS.longest, REPEAT_MS.first * 2 ** (longest - 1)), asks.filter(matters))
    }
  }

  const reads = createGather<Ask>({ atMost: AT_MOST, inFlight: IN_FLIGHT, matters, run: runRead })
  const settlings = createGather<Ask>({
    atMost: AT_MOST,
    inFlight: IN_FLIGHT,
    matters,
    run: async (asks) => {
      await runRead(asks)
      commits.pushAll(asks.filter(matters))
    },
  })
  const commits = createGather<Ask>({ atMost: AT_MOST, inFlight: IN_FLIGHT, matters, run: runCommit })
  const repeats = createLater<Ask>((asks) => commits.pushAll(asks))

  return {
    read: reads.pushAll,
    settle: settlings.pushAll,
    commit: commits.pushAll,
    commitApart: runCommit,
    stop: () => repeats.clear(),
  }
}
