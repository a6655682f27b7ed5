/**
 * Records the second clock in batches, after the answers: a batch of rows costs little more than one. What is recorded is
 * one telling of a commit; where the commit is to be told again since, nothing is.
 */
import { markEnforced, markStreamed } from '../store/commits.ts'
import type { CommitTelling, EnforcedMark } from '../store/commits.ts'
import type { Database } from '../store/postgres.ts'
import type { Log, Metrics } from '../telemetry.ts'

export interface EnforcedRecorder {
  /** Every local channel has confirmed it just now; `once`: there are no keys to delete a second time. */
  enforced(commit: CommitTelling, once: boolean): void
  /** It is on the stream, though not enforced yet. */
  streamed(commit: CommitTelling): void
  /** Records at once. Rejects where it could not. */
  mark(marks: readonly EnforcedMark[]): Promise<void>
  start(): void
  /** Records what is still unrecorded. */
  stop(): Promise<void>
}

const RECORD_EVERY_MS = 50

export const createEnforcedRecorder = (deps: { db: Database; metrics: Pick<Metrics, 'curfew_enforced_seconds'>; log: Log }): EnforcedRecorder => {
  const { db, metrics, log } = deps
  let enforced: (CommitTelling & { once: boolean; atMs: number })[] = []
  let streamed: CommitTelling[] = []
  let timer: NodeJS.Timeout | undefined
  let recording: Promise<void> = Promise.resolve()

  const mark = async (marks: readonly EnforcedMark[]) => {
    for (const seconds of await markEnforced(db, marks)) metrics.curfew_enforced_seconds.observe(seconds)
  }

  const record = async () => {
    const [done, onStream] = [enforced, streamed]
    if (done.length + onStream.length === 0) return
    enforced = []
    streamed = []
    const now = performance.now()
    try {
      if (onStream.length > 0) await markStreamed(db, onStream)
      if (done.length > 0) await mark(done.map(({ atMs, ...one }) => ({ ...one, ageMs: now - atMs })))
    } catch (error) {
      // Unrecorded is not lost: upkeep finds the commits unenforced and tells of them once more.
      log.warn({ event: 'enforce.unrecorded', commits: done.length, err: error }, 'could not record that caches were told')
    }
  }

  return {
    enforced: (commit, once) => void enforced.push({ ...commit, once, atMs: performance.now() }),
    streamed: (commit) => void streamed.push(commit),
    mark,
    start: () => {
      timer ??= setInterval(() => {
        recording = recording.then(record)
      }, RECORD_EVERY_MS)
    },
    stop: async () => {
      clearInterval(timer)
      timer = undefined
      recording = recording.then(record)
      await recording
    },
  }
}
