/**
 * The cache channel: a local channel, applied by us, in batches, before the answer is sent.
 *
 * For each ended session it writes a tombstone in `REDIS_URL`, kept for as long as the session or a token of it
 * could live, and deletes the session's keys in `CACHE_REDIS_URL`: those recorded at registration and those made
 * from `CACHE_KEY_TEMPLATES`. A request in flight in an application can write a deleted key back, so the keys are
 * deleted again later (`deleteKeys`). Both may be repeated; a key that is gone already is no error.
 */
import type { Redis } from 'ioredis'

export interface CacheTarget {
  readonly sessionId: string
  readonly issuer: string
  readonly userId: string
  readonly expiresAtMs: number
  readonly cacheKeys: readonly string[]
  readonly sids: readonly string[]
}

export interface CacheChannel {
  /** True where keys are made from a session's sids or user, so that targets must carry them. */
  readonly needsNames: boolean
  /** True where there are keys to delete for these targets. */
  hasKeys(targets: readonly Pick<CacheTarget, 'cacheKeys'>[]): boolean
  /** Writes the tombstones and deletes the keys. Rejects where a Redis did not confirm. */
  apply(targets: readonly CacheTarget[]): Promise<void>
  /** Deletes the keys alone: the second deletion. */
  deleteKeys(targets: readonly CacheTarget[]): Promise<void>
}

/** Sets each tombstone with its own expiry in one call. KEYS: tombstones. ARGV: their ends in Unix milliseconds. */
const WRITE_TOMBSTONES = `for i, key in ipairs(KEYS) do redis.call('SET', key, '1', 'PXAT', ARGV[i]) end`

/** Keys in one command: bounds what one command can hold up in a Redis that serves others too. */
const KEYS_PER_COMMAND = 500

/** The tombstone's key. All share a hash tag, so that a cluster takes a batch in one call. */
export const tombstoneKey = (issuer: string, sessionId: string): string => `{curfew}:tombstone:${issuer}|${sessionId}`

const slicesOf = <T>(items: readonly T[], size: number): T[][] => {
  const slices: T[][] = []
  for (let from = 0; from < items.length; from += size) slices.push(items.slice(from, from + size))
  return slices
}

/** The keys that `templates` make for one session: one for each sid where the template names a sid. */
const templatedKeys = (templates: readonly string[], { sessionId, userId, sids }: CacheTarget): string[] =>
  templates.flatMap((template) => {
    const named = template.replaceAll('{id}', () => sessionId).replaceAll('{userId}', () => userId)
    if (!named.includes('{sid}')) return [named]
    return [...new Set([sessionId, ...sids])].map((sid) => named.replaceAll('{sid}', () => sid))
  })

/** @param tombstones the Redis that must not evict, or null. @param cache the applications' Redis, or null. */
export const createCacheChannel = (deps: {
  tombstones: Redis | null
  cache: Redis | null
  keyTemplates: readonly string[]
  maxTokenLifetimeSeconds: number
  now: () => number
}): CacheChannel => {
  const { tombstones, cache, keyTemplates, maxTokenLifetimeSeconds, now } = deps

  const writeTombstones = async (redis: Redis, targets: readonly CacheTarget[]) => {
    const tokensEndMs = now() + maxTokenLifetimeSeconds * 1_000
    await Promise.all(
      slicesOf(targets, KEYS_PER_COMMAND).map((slice) =>
        redis.eval(
          WRITE_TOMBSTONES,
          slice.length,
          ...slice.map(({ issuer, sessionId }) => tombstoneKey(issuer, sessionId)),
          ...slice.map(({ expiresAtMs }) => Math.ceil(Math.max(expiresAtMs, tokensEndMs))),
        ),
      ),
    )
  }

  const deleteKeys = async (targets: readonly CacheTarget[]) => {
    if (cache === null) return
    const keys = targets.flatMap((target) => [...target.cacheKeys, ...templatedKeys(keyTemplates, target)])
    await Promise.all(slicesOf(keys, KEYS_PER_COMMAND).map((slice) => cache.unlink(...slice)))
  }

  return {
    needsNames: cache !== null && keyTemplates.some((template) => /\{sid\}|\{userId\}/.test(template)),
    hasKeys: (targets) => cache !== null && (keyTemplates.length > 0 || targets.some(({ cacheKeys }) => cacheKeys.length > 0)),
    apply: async (targets) => {
      await Promise.all([tombstones === null ? undefined : writeTombstones(tombstones, targets), deleteKeys(targets)])
    },
    deleteKeys,
  }
}
