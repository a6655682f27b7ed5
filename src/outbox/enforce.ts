/**
 * The second clock. A commit is enforced when the local channels have confirmed it: the stream its tombstones, the cache
 * channel the deletion of keys. The worker tries at once, within a bound, before it answers; what was not confirmed
 * stays findable in Postgres (`commits.enforced_at is null`) and `upkeep` comes back to it. Recording happens in
 * batches, after the answer.
 */
import type { CacheChannel, CacheTarget } from '../channels/cache.ts'
import type { StreamChannel } from '../channels/stream.ts'
import type { EndedSession } from '../model.ts'
import { within } from '../queue/within.ts'
import { markEnforced, markEnforcedAgain, markUnenforced, readDueAgain, readEnforceable, readUnenforced } from '../store/commits.ts'
import type { Database } from '../store/postgres.ts'
import type { Log, Metrics } from '../telemetry.ts'

export interface Enforcement {
  /** Tells the caches of a commit, waiting `boundMs` at most. Never rejects: what fails is upkeep's. */
  enforce(commitId: string, ended: readonly EndedSession[]): Promise<void>
  /** Tells the caches of a chunk of a revocation: nobody waits for an answer, so only as long as they take. Never rejects. */
  enforceChunk(commitId: string, ended: readonly EndedSession[]): Promise<void>
  /**
   * Tells the caches of a sid by which a participant came to know a session of this commit too late, within a bound. Never
   * rejects: where it fails, upkeep enforces the whole commit once more.
   */
  enforceLateSid(commitId: string, session: EndedSession): Promise<void>
  /** Takes up all commits that were not enforced. */
  enforcePending(): Promise<void>
  /** Deletes cache keys a second time wherever that is due. */
  enforceAgain(): Promise<void>
  start(): Promise<void>
  /** Records what is still unrecorded. */
  stop(): Promise<void>
}

/** How long a caller's answer may wait for the caches: a Redis round trip many times over, and less than a person notices. */
const BOUND_MS = 100
/** Recording interval: a batch of rows costs little more than one. */
const RECORD_EVERY_MS = 50
/** Younger commits are still in their worker's hands. */
const PENDING_AFTER_MS = 2_000
/** After a chunk that caches did not confirm, the next ones are left to upkeep for so long: sessions end all the same. */
const CHUNKS_AWAY_MS = 2_000
/** Commits, and sessions of them, taken up at once by upkeep: some 10 MB of targets in memory. */
const AT_ONCE = { limit: 100, sessions: 20_000 } as const

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
  /** Aborted when the process stops: the slice that upkeep has in hand is its last. */
  signal?: AbortSignal
  metrics: Pick<Metrics, 'curfew_enforced_seconds'>
  log: Log
}): Enforcement => {
  const { db, channel, stream, secondDeleteSeconds, signal, metrics, log } = deps
  let confirmed: Confirmed[] = []
  let timer: NodeJS.Timeout | undefined
  let recording: Promise<void> = Promise.resolve()
  /** The caches did not confirm in time: until one attempt does, nobody waits for them, and one attempt at a time is made. */
  let away = false
  let attempts = 0
  let chunksFromMs = 0

  const mark = async (commitIds: readonly string[], agesMs: readonly number[], again: readonly boolean[]) => {
    for (const seconds of await markEnforced(db, commitIds, agesMs, again)) metrics.curfew_enforced_seconds.observe(seconds)
  }

  const record = async () => {
    const batch = confirmed
    if (batch.length === 0) return
    confirmed = []
    const now = performance.now()
    try {
      await mark(batch.map(({ commitId }) => commitId), batch.map(({ atMs }) => now - atMs), batch.map(({ again }) => again))
    } catch (error) {
      // Unrecorded is not lost: upkeep finds the commits unenforced and tells the caches once more.
      log.warn({ event: 'enforce.unrecorded', commits: batch.length, err: error }, 'could not record that caches were told')
    }
  }

  const withUsers = async (commitId: string, ended: readonly EndedSession[]): Promise<CacheTarget[]> =>
    channel.needsUsers ? readEnforceable(db, [commitId]) : ended.map((session) => ({ ...session, userId: '' }))

  const applyOnce = async (commitId: string, ended: readonly EndedSession[]) => {
    // The tombstones wait for nothing else.
    const announced = stream?.announce(commitId, ended)
    const deleted = withUsers(commitId, ended).then(async (targets) => {
      await channel.deleteKeys(targets)
      return targets
    })
    const [targets] = await Promise.all([deleted, announced])
    confirmed.push({ commitId, atMs: performance.now(), again: !channel.hasKeys(targets) })
  }

  const attempt = async (commitId: string, ended: readonly EndedSession[]) => {
    attempts += 1
    try {
      await applyOnce(commitId, ended)
      away = false
    } catch (error) {
      if (!away) log.warn({ event: 'enforce.failed', commitId, err: error }, 'caches cannot be told; upkeep will come back to it')
      away = true
    } finally {
      attempts -= 1
    }
  }

  const enforceLate = async (ids: readonly string[]) => {
    const sessions = await readEnforceable(db, ids)
    const last = ids.at(-1)
    await Promise.all([last === undefined ? undefined : stream?.announce(last, sessions), channel.deleteKeys(sessions)])
    const again = !channel.hasKeys(sessions)
    await mark(ids, ids.map(() => 0), ids.map(() => again))
  }

  const deleteAgain = async (ids: readonly string[]) => {
    await channel.deleteKeys(await readEnforceable(db, ids))
    await markEnforcedAgain(db, ids)
  }

  /** Slice after slice until a read finds none. Each slice is marked, so the next read does not meet it. */
  const takeUpAll = async (read: () => Promise<string[]>, settle: (ids: readonly string[]) => Promise<void>) => {
    let ids: string[]
    do {
      ids = await read()
      if (ids.length > 0) await settle(ids)
    } while (ids.length > 0 && signal?.aborted !== true)
  }

  return {
    enforce: async (commitId, ended) => {
      if (away && attempts > 0) return
      const applied = attempt(commitId, ended)
      if (away) return
      let bound: NodeJS.Timeout | undefined
      const late = new Promise<void>((resolve) => {
        bound = setTimeout(() => {
          away = true
          resolve()
        }, BOUND_MS)
      })
      await Promise.race([applied, late])
      clearTimeout(bound)
    },
    enforceChunk: async (commitId, ended) => {
      // Until a log-out has found them back, caches are upkeep's.
      if (away || performance.now() < chunksFromMs) return
      try {
        await applyOnce(commitId, ended)
      } catch (error) {
        chunksFromMs = performance.now() + CHUNKS_AWAY_MS
        log.warn({ event: 'enforce.failed', commitId, err: error }, 'caches cannot be told; upkeep will come back to it')
      }
    },
    enforceLateSid: async (commitId, session) => {
      const told = Promise.all([stream?.announce(commitId, [session]), channel.deleteKeys([{ ...session, userId: '' }])])
      try {
        await within(told, BOUND_MS, 'Telling of a late sid')
      } catch (err) {
        log.warn({ event: 'enforce.late_failed', commitId, err }, 'caches cannot be told of a late participant; upkeep will come back to it')
        await markUnenforced(db, commitId).catch((error: unknown) => log.error({ event: 'enforce.late_lost', commitId, err: error }, 'a late participant is not told to caches'))
      }
    },
    enforcePending: () => takeUpAll(() => readUnenforced(db, { olderThanMs: PENDING_AFTER_MS, ...AT_ONCE }), enforceLate),
    enforceAgain: () => takeUpAll(() => readDueAgain(db, { afterSeconds: secondDeleteSeconds, ...AT_ONCE }), deleteAgain),
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
