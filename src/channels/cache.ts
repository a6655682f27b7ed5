/**
 * The cache channel: a local channel, applied by us, in batches, before the answer is sent.
 *
 * It deletes the keys of ended sessions in `CACHE_REDIS_URL`: those recorded at registration and those made from
 * `CACHE_KEY_TEMPLATES`. A request in flight in an application can write a deleted key back, so the keys are deleted
 * again later. May be repeated; a key that is gone already is no error. Tombstones are the stream's (`stream.ts`).
 */
import type { Redis } from 'ioredis'

export interface CacheTarget {
  readonly sessionId: string
  readonly issuer: string
  readonly userId: string
  readonly expiresAtMs: number
  readonly cacheKeys: readonly string[]
  /** Other than the id. */
  readonly sids: readonly string[]
}

export interface CacheChannel {
  /** True where keys are made from a session's user, so that targets must carry it. */
  readonly needsUsers: boolean
  /** True where there are keys to delete for these targets. */
  hasKeys(targets: readonly Pick<CacheTarget, 'cacheKeys'>[]): boolean
  /** Deletes the keys. Rejects where Redis did not confirm. */
  deleteKeys(targets: readonly CacheTarget[]): Promise<void>
}

/** Keys in one command: bounds what one command can hold up in a Redis that serves others too. */
const KEYS_PER_COMMAND = 500

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
    return [sessionId, ...sids].map((sid) => named.replaceAll('{sid}', () => sid))
  })

/** @param cache the applications' Redis, or null. */
export const createCacheChannel = ({ cache, keyTemplates }: { cache: Redis | null; keyTemplates: readonly string[] }): CacheChannel => ({
  needsUsers: cache !== null && keyTemplates.some((template) => template.includes('{userId}')),
  hasKeys: (targets) => cache !== null && (keyTemplates.length > 0 || targets.some(({ cacheKeys }) => cacheKeys.length > 0)),
  deleteKeys: async (targets) => {
    if (cache === null) return
    const keys = targets.flatMap((target) => [...target.cacheKeys, ...templatedKeys(keyTemplates, target)])
    await Promise.all(slicesOf(keys, KEYS_PER_COMMAND).map((slice) => cache.unlink(...slice)))
  },
})
