/**
 * Connections to Redis: one factory for each way of using it, because no one setting suits two of them.
 *
 * - A producer fails fast: no offline queue, no resending (a command sent twice is a job added twice), a deadline on
 *   every command. Its caller has another way to go on.
 * - A worker's connection waits for ever, as BullMQ requires; a blocking read must not have a command deadline.
 * - A heartbeat fails fastest and never repeats a PING.
 * - A plain connection serves everyone else (tombstones, cache keys): fail fast, but one retry across a reconnect.
 *
 * All of them reconnect for ever, soon (half a second at most, so that nothing lags behind a Redis that came back) and
 * with full jitter, and reconnect where a failover left them on a replica.
 */
import { Redis } from 'ioredis'
import type { RedisOptions } from 'ioredis'

export type OnRedisError = (error: Error) => void

const RECONNECT_AT_MOST_MS = 500
const fullJitter = (attempt: number): number => 20 + Math.random() * Math.min(RECONNECT_AT_MOST_MS, 50 * 2 ** Math.min(attempt, 6))

const common = {
  connectTimeout: 1_000,
  keepAlive: 10_000,
  retryStrategy: fullJitter,
  reconnectOnError: (error: Error) => error.message.startsWith('READONLY'),
} as const satisfies RedisOptions

const failFast = { ...common, enableOfflineQueue: false, maxRetriesPerRequest: 0, autoResendUnfulfilledCommands: false } as const satisfies RedisOptions

/** Above the heartbeat's 300 ms: whichever notices first, a batch does not hang. */
const PRODUCER_COMMAND_MS = 400

const open = (url: string, options: RedisOptions, onError: OnRedisError): Redis => {
  const redis = new Redis(url, options)
  redis.on('error', onError)
  return redis
}

/** Above the 5 s for which BullMQ's readers block: a peer that vanished without a word is found by its silence. */
const SILENT_MS = 10_000

/** For adding jobs. Rejects at once while not connected, and within 400 ms otherwise. */
export const createProducerRedis = (url: string, onError: OnRedisError): Redis =>
  open(url, { ...failFast, commandTimeout: PRODUCER_COMMAND_MS }, onError)

/** For a heartbeat: whatever it does not answer at once is lost. The caller keeps the time. */
export const createHeartbeatRedis = (url: string, onError: OnRedisError): Redis =>
  open(url, { ...failFast, disconnectTimeout: 200 }, onError)

/** After commands have been rejected for their silence: the peer has vanished, and a new connection may find another. */
const PLAIN_SILENT_MS = 2_000

/** For tombstones, cache keys and the like. Rejects within a second. */
export const createPlainRedis = (url: string, onError: OnRedisError): Redis =>
  open(url, { ...common, commandTimeout: 1_000, socketTimeout: PLAIN_SILENT_MS, maxRetriesPerRequest: 1 }, onError)

export interface WorkerRedis {
  readonly redis: Redis
  /** Ends this connection and every copy of it that BullMQ has made, without waiting for Redis. */
  cut(): void
}

/**
 * For BullMQ's blocking readers. BullMQ copies the connection it is given and closes the copy only with Redis'
 * help; so the copies are kept here too, and can be cut while Redis is away.
 *
 * @param onlyCopied true where BullMQ uses the copy alone: the original then never connects.
 */
export const createWorkerRedis = (url: string, onError: OnRedisError, onlyCopied = false): WorkerRedis => {
  const options: RedisOptions = { ...common, maxRetriesPerRequest: null, socketTimeout: SILENT_MS }
  const made: Redis[] = []
  const make = (change: RedisOptions): Redis => {
    const redis = open(url, { ...options, ...change }, onError)
    made.push(redis)
    return redis
  }
  const redis = make({ lazyConnect: onlyCopied })
  redis.duplicate = (change) => make(change ?? {})
  return { redis, cut: () => { for (const one of made) one.disconnect() } }
}

/** This Redis cannot keep what Curfew entrusts to it. The message says what to change. */
export class RedisUnusableError extends Error {
  override readonly name = 'RedisUnusableError'
}

/** Nobody answers there, so nothing is known of this Redis; Curfew does its work without one until it comes. */
export class RedisAwayError extends Error {
  override readonly name = 'RedisAwayError'
}

const LEAST_VERSION = [6, 2] as const

/**
 * Refuses a Redis that evicts (jobs and tombstones would vanish at random) or is older than 6.2.
 *
 * @throws RedisUnusableError; RedisAwayError where it cannot be reached within 2 seconds.
 */
export const assertRedisUsable = async (url: string): Promise<void> => {
  const redis = new Redis(url, { lazyConnect: true, connectTimeout: 2_000, commandTimeout: 2_000, maxRetriesPerRequest: 0, retryStrategy: () => null })
  let lastError: unknown
  redis.on('error', (error) => { lastError = error })
  try {
    await redis.connect()
    const info = `${await redis.info('server')}\n${await redis.info('memory')}`
    const field = (name: string) => new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1]
    const version = field('redis_version') ?? '0'
    const [major = 0, minor = 0] = version.split('.').map(Number)
    if (major < LEAST_VERSION[0] || (major === LEAST_VERSION[0] && minor < LEAST_VERSION[1])) {
      throw new RedisUnusableError(`The Redis at REDIS_URL is version ${version}; 6.2 or newer is needed.`)
    }
    const policy = field('maxmemory_policy') ?? 'unknown'
    if (policy !== 'noeviction') {
      throw new RedisUnusableError(
        `The Redis at REDIS_URL has maxmemory-policy ${policy}, so it may drop jobs and tombstones; it must be noeviction. ` +
          'An evicting Redis can be CACHE_REDIS_URL.',
      )
    }
  } catch (error) {
    if (error instanceof RedisUnusableError) throw error
    throw new RedisAwayError('The Redis at REDIS_URL cannot be reached.', { cause: lastError ?? error })
  } finally {
    redis.disconnect()
  }
}
