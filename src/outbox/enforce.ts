/**
 * The second clock. A commit is enforced when the local channels have confirmed it: the stream its tombstones, the cache
 * channel the deletion of keys. The worker tries at once, within a bound, before it answers; what was not confirmed
 * stays findable in Postgres (`commits.enforced_at is null`) and `upkeep` comes back to it. Recording happens in
 * batches, after the answer.
 */
import type { CacheChannel, CacheTarget } from '../channels/cache.ts'
import type { StreamChannel } from '../channels/stream.ts'
import type { EndedSession } from '../model.ts'
import { markEnforced, markEnforcedAgain, readDueAgain, readEnforceable, readUnenforced } from '../store/commits.ts'
import type { Database } from '../store/postgres.ts'
import type { Log, Metrics } from '../telemetry.ts'

export interface Enforcement {
  /** Tells the caches of a commit, waiting `boundMs` at most. Never rejects: what fails is upkeep's. */
  enforce(commitId: string, ended: readonly EndedSession[]): Promise<void>
  /** Takes up all commits that were not enforced. */
  enforcePending(): Promise<void>
  /** Deletes cache keys a second time wherever that is due. */
  enforceAgain(): Promise<void>
  start(): Promise<void>
  /** Records what is still unrecorded. */
  stop(): Promise<void>
}

/** How long a caller's answer may wait for the caches. Longer than a Redis round trip by far, shorter than a person notices. */
const BOUND_MS = 250
/** Recording interval: a batch of rows costs little more than one. */
const RECORD_EVERY_MS = 50
/** Younger commits are still in their worker's hands. */
const PENDING_AFTER_MS = 2_000
/** Commits taken up at once by upkeep; at 500 sessions a commit, at most 50,000 targets in memory. */
const COMMITS_AT_ONCE = 100

interface Confirmed {
  readonly commitId: string
  readonly atMs: number
  readonly again: boolean
}

export const createEnforcement = (deps: {
  db: Database
  channel: CacheChannel
  /** Null: there is no Redis, and guards follow Postgres over HTTP. */
  stream: Pick<StreamChannel, 'announce'> | null
  secondDeleteSeconds: number
  metrics: Pick<Metrics, 'curfew_enforced_seconds'>
  log: Log
}): Enforcement => {
  const { db, channel, stream, secondDeleteSeconds, metrics, log } = deps
  let confirmed: Confirmed[] = []
  let timer: NodeJS.Timeout | undefined
  let recording: Promise<void> = Promise.resolve()

  const record = async () => {
    const batch = confirmed
    if (batch.length === 0) return
    confirmed = []
    const now = performance.now()
    try {
      await markEnforced(db, batch.map(({ commitId }) => commitId), batch.map(({ atMs }) => now - atMs), batch.map(({ again }) => again))
    } catch (error) {
      // Unrecorded is not lost: upkeep finds the commits unenforced and tells the caches once more.
      log.warn({ event: 'enforce.unrecorded', commits: batch.length, err: error }, 'could not record that caches were told')
    }
  }

  const withNames = async (commitId: string, ended: readonly EndedSession[]): Promise<CacheTarget[]> =>
    channel.needsNames ? readEnforceable(db, [commitId]) : ended.map((session) => ({ ...session, userId: '', sids: [] }))

  const applyOnce = async (commitId: string, ended: readonly EndedSession[], since: number) => {
    // The tombstones wait for nothing else.
    const announced = stream?.announce(commitId, ended)
    const deleted = withNames(commitId, ended).then(async (named) => {
      await channel.deleteKeys(named)
      return named
    })
    const [targets] = await Promise.all([deleted, announced])
    const atMs = performance.now()
    metrics.curfew_enforced_seconds.observe((atMs - since) / 1_000)
    confirmed.push({ commitId, atMs, again: !channel.hasKeys(targets) })
  }

  const enforceLate = async (ids: readonly string[]) => {
    const sessions = await readEnforceable(db, ids)
    const last = ids.at(-1)
    await Promise.all([last === undefined ? undefined : stream?.announce(last, sessions), channel.deleteKeys(sessions)])
    const again = !channel.hasKeys(sessions)
    await markEnforced(db, ids, ids.map(() => 0), ids.map(() => again))
  }

  const deleteAgain = async (ids: readonly string[]) => {
    await channel.deleteKeys(await readEnforceable(db, ids))
    await markEnforcedAgain(db, ids)
  }

  /** Slice after slice until a read finds less than a slice. Each slice is marked, so the next read does not meet it. */
  const takeUpAll = async (read: () => Promise<string[]>, settle: (ids: readonly string[]) => Promise<void>) => {
    let ids: string[]
    do {
      ids = await read()
      if (ids.length > 0) await settle(ids)
    } while (ids.length === COMMITS_AT_ONCE)
  }

  return {
    enforce: async (commitId, ended) => {
      const since = performance.now()
      let bound: NodeJS.Timeout | undefined
      const late = new Promise<void>((resolve) => {
        bound = setTimeout(resolve, BOUND_MS)
      })
      const applied = applyOnce(commitId, ended, since).catch((error: unknown) => {
        log.warn({ event: 'enforce.failed', commitId, err: error }, 'caches could not be told; upkeep will come back to it')
      })
      await Promise.race([applied, late])
      clearTimeout(bound)
    },
    enforcePending: () => takeUpAll(() => readUnenforced(db, { olderThanMs: PENDING_AFTER_MS, limit: COMMITS_AT_ONCE }), enforceLate),
    enforceAgain: () => takeUpAll(() => readDueAgain(db, { afterSeconds: secondDeleteSeconds, limit: COMMITS_AT_ONCE }), deleteAgain),
    start: async () => {
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
