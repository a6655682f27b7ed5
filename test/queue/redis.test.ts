import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { RedisAwayError, assertRedisUsable } from '../../src/store/redis.ts'
import { freePort } from '../harness/ports.ts'
import { redisMissing, startRedis } from '../harness/redis.ts'
import type { TestRedis } from '../harness/redis.ts'

describe.skipIf(redisMissing)('the Redis at REDIS_URL', () => {
  let redis: TestRedis
  beforeAll(async () => { redis = await startRedis() })
  afterAll(() => redis.stop())

  it('is accepted when it keeps what it is given', async () => {
    await redis.client.config('SET', 'maxmemory-policy', 'noeviction')
    await expect(assertRedisUsable(redis.url)).resolves.toBeUndefined()
  })

  it.each(['allkeys-lru', 'volatile-ttl'])('is refused, with a sentence that says what to change, when it evicts by %s', async (policy) => {
    await redis.client.config('SET', 'maxmemory-policy', policy)
    await expect(assertRedisUsable(redis.url)).rejects.toThrow(`has maxmemory-policy ${policy}, so it may drop jobs and tombstones; it must be noeviction`)
  })

  it('is told apart when it cannot be reached', async () => {
    await expect(assertRedisUsable(`redis://127.0.0.1:${await freePort()}`)).rejects.toBeInstanceOf(RedisAwayError)
  })
})
