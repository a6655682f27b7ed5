/**
 * The second clock. A commit is enforced when the local channels have confirmed it: the stream its tombstones, the cache
 * channel the deletion of keys. The worker tries at once, within a bound, before it answers; what was not confirmed
 * stays findable in Postgres (`commits.enforced_at is null`) and `upkeep` comes back to it.
 *
 * The two are told and judged apart (`outlet.ts`): the applications' caches may be away for an hour, and guards still
 * learn of every tombstone at once, and that nothing is missing.
 */
import type { CacheChannel, CacheTarget } from '../channels/cache.ts'
import type { StreamChannel } from '../channels/stream.ts'
import type { EndedSession } from '../model.ts'
import { within } from '../queue/within.ts'
import { FIRST_TELLING, markEnforcedAgain, markStreamed, readDueAgain, readEnforceable, readUnenforced, readUnstreamed } from '../store/commits.ts'
import type { CommitTelling, EnforceableSession } from '../store/commits.ts'
import type { Database } from '../store/postgres.ts'
import type { LateSid } from '../store/session-participants.ts'
import type { Log, Metrics } from '../telemetry.ts'
import { createOutlet } from './outlet.ts'
import type { Outlet } from './outlet.ts'
import { createEnforcedRecorder } from './record-enforced.ts'

export interface Enforcement {
  /** Tells the local channels of a commit, waiting a bound at most. Never rejects: what fails is upkeep's. */
  enforce(commitId: string, ended: readonly EndedSession[]): Promise<void>
  /** Tells them of a chunk of a revocation: nobody waits for an answer, so only as long as they take. Never rejects. */
  enforceChunk(commitId: string, ended: readonly EndedSession[]): Promise<void>
  /**
   * Tells them of a sid by which a participant came to know a session too late, within a bound. Never rejects: what fails
   * is upkeep's, because its commit has counted as unenforced since the sid was stored.
   */
  enforceLateSid(late: LateSid): Promise<void>
  /** Takes up all commits that were not enforced. @throws what a channel rejects with, once the other has been told of all. */
  enforcePending(): Promise<void>
  /** Deletes cache keys a second time wherever that is due. */
  enforceAgain(): Promise<void>
  start(): Promise<void>
  /** Records what is still unrecorded. */
  stop(): Promise<void>
}

const LATE_SID_BOUND_MS = 100
/** Younger commits are still in their worker's hands. */
const PENDING_AFTER_MS = 2_000
/** Commits, and sessions of them, taken up at once by upkeep: some 10 MB of targets in memory. */
const AT_ONCE = { limit: 100, sessions: 20_000 } as const

export const createEnforcement = (deps: {
  db: Database
  channel: CacheChannel
  /** Null: there is no Redis, and guards follow Postgres over HTTP. */
  stream: Pick<StreamChannel, 'announce'> | null
  secondDeleteSeconds: number
  /** Aborted when the process stops: the slice that upkeep has in hand is its last. */
  signal?: AbortSignal
  metrics: Pick<Metrics, 'curfew_enforced_seconds'>
  log: Log
}): Enforcement => {
  const { db, channel, stream, secondDeleteSeconds, signal, metrics, log } = deps
  const recorder = createEnforcedRecorder({ db, metrics, log })
  const outlets = { stream: createOutlet({ what: 'stream', log }), cache: createOutlet({ what: 'cache', log }) }

  const announce = async (commitId: string, ended: readonly EndedSession[]): Promise<void> => stream?.announce(commitId, ended)

  /** Deletes the keys; returns whether once is enough: there are none to delete a second time. */
  const deleteKeys = async (commitId: string, ended: readonly EndedSession[]): Promise<boolean> => {
    const targets: readonly CacheTarget[] = channel.needsUsers
      ? await readEnforceable(db, [commitId])
      : ended.map((session) => ({ ...session, userId: '' }))
    await channel.deleteKeys(targets)
    return !channel.hasKeys(targets)
  }

  /** Both at the same time, the tombstones wait for nothing else; records what they confirmed. @param tell resolves with whether. */
  const tellBoth = async (
    commitId: string, ended: readonly EndedSession[], tell: (outlet: Outlet, work: () => Promise<void>) => Promise<boolean>,
  ): Promise<void> => {
    let once = false
    const [streamed, deleted] = await Promise.all([
      tell(outlets.stream, () => announce(commitId, ended)),
      tell(outlets.cache, async () => {
        once = await deleteKeys(commitId, ended)
      }),
    ])
    const commit = { commitId, telling: FIRST_TELLING }
    if (streamed && deleted) recorder.enforced(commit, once)
    else if (streamed) recorder.streamed(commit)
  }

  /** Slice after slice until a read finds none. Each slice is marked, so the next read does not meet it. */
  const takeUpAll = async <T>(read: () => Promise<T[]>, settle: (slice: readonly T[]) => Promise<void>) => {
    let slice: T[]
    do {
      slice = await read()
      if (slice.length > 0) await settle(slice)
    } while (slice.length > 0 && signal?.aborted !== true)
  }

  const marksOf = (commits: readonly CommitTelling[], sessions: readonly EnforceableSession[]) => {
    const once = !channel.hasKeys(sessions)
    return commits.map((commit) => ({ ...commit, ageMs: 0, once }))
  }
  const idsOf = (commits: readonly CommitTelling[]): string[] => commits.map(({ commitId }) => commitId)

  return {
    enforce: async (commitId, ended) => {
      const waits: Promise<void>[] = []
      void tellBoth(commitId, ended, (outlet, work) => {
        const { confirmed, waited } = outlet.tell(work)
        waits.push(waited)
        return confirmed
      })
      await Promise.all(waits)
    },
    enforceChunk: (commitId, ended) => tellBoth(commitId, ended, (outlet, work) => outlet.tellPatiently(work)),
    enforceLateSid: async ({ commitId, session, telling }) => {
      try {
        const told = Promise.all([deleteKeys(commitId, [session]), announce(commitId, [session])])
        const [once] = await within(told, LATE_SID_BOUND_MS, 'Telling of a late sid')
        if (telling !== null) recorder.enforced({ commitId, telling }, once)
      } catch (err) {
        log.warn({ event: 'enforce.late_failed', commitId, err }, 'local channels cannot be told of a late participant; upkeep will come back to it')
      }
    },
    enforcePending: async () => {
      // Guards come first, and wait for no cache.
      const failures: unknown[] = []
      await takeUpAll(() => readUnstreamed(db, { olderThanMs: PENDING_AFTER_MS, ...AT_ONCE }), async (commits) => {
        const sessions = await readEnforceable(db, idsOf(commits))
        const deleted = failures.length === 0 ? channel.deleteKeys(sessions).catch((error: unknown) => failures.push(error)) : undefined
        const last = commits.at(-1)
        await Promise.all([last === undefined ? undefined : announce(last.commitId, sessions), deleted])
        if (failures.length === 0) await recorder.mark(marksOf(commits, sessions))
        else await markStreamed(db, commits)
      })
      if (failures.length > 0) throw failures[0]
      await takeUpAll(() => readUnenforced(db, { olderThanMs: PENDING_AFTER_MS, ...AT_ONCE }), async (commits) => {
        const sessions = await readEnforceable(db, idsOf(commits))
        await channel.deleteKeys(sessions)
        await recorder.mark(marksOf(commits, sessions))
      })
    },
    enforceAgain: () => takeUpAll(() => readDueAgain(db, { afterSeconds: secondDeleteSeconds, ...AT_ONCE }), async (ids) => {
      await channel.deleteKeys(await readEnforceable(db, ids))
      await markEnforcedAgain(db, ids)
    }),
    start: async () => recorder.start(),
    stop: recorder.stop,
  }
}
