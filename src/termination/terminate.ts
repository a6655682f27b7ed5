/**
 * Sessions end here, and nowhere else: the worker's handler and the API's own commit are this one function.
 *
 * Commits a batch, tells the caches within a bound, wakes the router, answers. It writes the outbox row with the
 * termination and never notifies anyone itself. May be repeated with the same commands at any time: they are
 * answered `before`, with the details of the first termination, and nothing is written.
 */
import type { EndedSession, TerminateAnswer, TerminateCommand } from '../model.ts'
import { cannotConnect, changedNothing, sqlState } from '../store/postgres-failures.ts'
import type { Database } from '../store/postgres.ts'
import { terminateSessions } from '../store/terminations.ts'
import type { Log } from '../telemetry.ts'

export type Terminate = (commands: readonly TerminateCommand[]) => Promise<TerminateAnswer[]>

export interface TerminateDeps {
  readonly db: Database
  /** Tells the caches; bounded, never rejects. */
  readonly enforce: (commitId: string, ended: readonly EndedSession[]) => Promise<void>
  /** Wakes the router; best effort, upkeep finds what it misses. */
  readonly wakeRoute: () => void
  readonly log: Log
}

export const createTerminate = ({ db, enforce, wakeRoute, log }: TerminateDeps): Terminate => {
  const commit = async (commands: readonly TerminateCommand[]): Promise<TerminateAnswer[]> => {
    const { answers, ended, commitId } = await terminateSessions(db, commands)
    if (commitId !== null) {
      wakeRoute()
      await enforce(commitId, ended)
    }
    return [...answers]
  }

  /**
   * One bad row must not fail the others: a batch that certainly changed nothing is split until the row stands
   * alone, and that one is answered `busy`, so that its asker tries again and in the end is told the truth. What
   * failed without certainty (a cut connection) is thrown: the asker reads or repeats.
   */
  const commitOrSplit = async (commands: readonly TerminateCommand[]): Promise<TerminateAnswer[]> => {
    try {
      return await commit(commands)
    } catch (error) {
      if (!isOfTheRow(error)) throw error
      log.error({ event: 'terminate.failed', commands: commands.length, err: error }, 'a batch failed and is split')
      if (commands.length === 1) return [{ outcome: 'busy' }]
      const middle = commands.length >> 1
      return [...(await commitOrSplit(commands.slice(0, middle))), ...(await commitOrSplit(commands.slice(middle)))]
    }
  }

  return commitOrSplit
}

const isOfTheRow = (error: unknown): boolean => changedNothing(error) && !cannotWrite(error)

/** No row is at fault where nothing can be written at all: no connection, read-only, out of space, shutting down. */
const cannotWrite = (error: unknown): boolean => cannotConnect(error) || /^(25006|53|57P|08|3D|28)/.test(sqlState(error) ?? '')
