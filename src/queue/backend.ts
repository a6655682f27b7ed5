/**
 * Which store BullMQ keeps its lanes in: Redis, or Postgres where there is no Redis. Everything above is the same code.
 *
 * Every connection is made here (or by `store/redis.ts`) and handed to BullMQ, so that it can be cut when a stop
 * must not wait for a store that is away.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { Queue, QueueEvents, Worker, createPostgresBackend, createRedisBackend, runMigrations } from 'bullmq'
import type { BackendFactory, IQueueBackend, Job, JobProgress } from 'bullmq'
import pg from 'pg'
import { deadlineClient, withClient } from '../store/postgres.ts'
import { createProducerRedis, createWorkerRedis } from '../store/redis.ts'
import type { Log } from '../telemetry.ts'
import { EVENTS_KEPT, FAILED_KEPT, KEY_PREFIX, lanes, queueName } from './lanes.ts'
import type { LaneName } from './lanes.ts'
import { createSeldom } from './seldom.ts'

/** Brings the queue's own tables (schema `bullmq`) up to date. May be repeated and run concurrently. */
export const migrateQueue = (databaseUrl: string): Promise<void> =>
  withClient(databaseUrl, async (client) => {
    await runMigrations(client)
  })

type Store = IQueueBackend
export type LaneQueue = Queue<unknown, unknown, string, unknown, unknown, string, Store, unknown>
export type LaneWorker = Worker<unknown, unknown, string, Store, JobProgress, unknown>
export type LaneEvents = QueueEvents<unknown, Store, unknown>

/** Something of BullMQ's, and how to end the connections beneath it without the store's help. */
export interface Open<T> {
  readonly it: T
  cut(): void
}

export interface QueueBackend {
  readonly kind: 'redis' | 'postgres'
  /** Of Redis, where the lanes are in Redis. */
  readonly redisUrl: string | null
  openQueue(lane: LaneName): Open<LaneQueue>
  openEvents(lane: LaneName): Open<LaneEvents>
  /** Does nothing until its `run()`. */
  openWorker(lane: LaneName, process: (job: Job<unknown>) => Promise<unknown>): Open<LaneWorker>
}

interface Link {
  readonly connection: unknown
  readonly factory: BackendFactory<Store, unknown>
  cut(): void
}

/** A killed worker's job is taken up by another within about 15 s; its askers have long been answered by then. */
const WORKER_OPTIONS = {
  lockDuration: 10_000,
  stalledInterval: 5_000,
  // A job that outlived this many workers may well be what kills them.
  maxStalledCount: 20,
  // BullMQ's 15 s would keep workers away from a store that is back.
  runRetryDelay: 250,
  removeOnComplete: { count: 0 },
  removeOnFail: FAILED_KEPT,
  autorun: false,
} as const

const ASK_AGAIN_AFTER_MS = 250

/**
 * A worker whose request for a job failed asks again without a pause, unless it takes the error for a lost connection
 * (BullMQ 6.7 knows few as such): that would take a core while Postgres cuts connections or will not be written to, and
 * the whole event loop after its pool was ended. So a failure is told late.
 */
const patient = (factory: BackendFactory<Store, unknown>): BackendFactory<Store, unknown> => (...context) => {
  const store = factory(...context)
  const moveToActive = store.moveToActive.bind(store)
  store.moveToActive = async (token, name) => {
    try {
      return await moveToActive(token, name)
    } catch (error) {
      await pause(ASK_AGAIN_AFTER_MS)
      throw error
    }
  }
  return store
}

/** How long an idle reader of results blocks; a read that hangs is given up one second later. */
const EVENTS_BLOCK_MS = 5_000

export const createQueueBackend = (deps: { redisUrl: string | null; databaseUrl: string; log: Log }): QueueBackend => {
  const { redisUrl, databaseUrl, log } = deps
  const seldom = createSeldom(log)
  const onError = (error: Error) => seldom.warn({ event: 'queue.connection', err: error }, 'a connection of the queue failed')

  const links = redisUrl === null ? postgresLinks(databaseUrl, onError) : redisLinks(redisUrl, onError)
  const base = (link: Link) => ({ connection: link.connection, prefix: KEY_PREFIX })

  return {
    kind: redisUrl === null ? 'postgres' : 'redis',
    redisUrl,
    openQueue: (lane) => {
      const link = links.producer()
      const it: LaneQueue = new Queue(queueName(lane), { ...base(link), streams: { events: { maxLen: EVENTS_KEPT } } }, link.factory)
      it.on('error', onError)
      return { it, cut: link.cut }
    },
    openEvents: (lane) => {
      const link = links.events()
      const it: LaneEvents = new QueueEvents(queueName(lane), { ...base(link), autorun: false, blockingTimeout: EVENTS_BLOCK_MS }, link.factory)
      it.on('error', onError)
      return { it, cut: link.cut }
    },
    openWorker: (lane, process) => {
      const { concurrency } = lanes[lane]
      const link = links.worker(concurrency)
      const it: LaneWorker = new Worker(queueName(lane), process, { ...base(link), ...WORKER_OPTIONS, concurrency }, patient(link.factory))
      it.on('error', onError)
      return { it, cut: link.cut }
    },
  }
}

interface Links {
  producer(): Link
  events(): Link
  worker(concurrency: number): Link
}

const redisLinks = (url: string, onError: (error: Error) => void): Links => {
  const factory = createRedisBackend as unknown as BackendFactory<Store, unknown>
  return {
    producer: () => {
      const redis = createProducerRedis(url, onError)
      return { connection: redis, factory, cut: () => redis.disconnect() }
    },
    events: () => {
      const { redis, cut } = createWorkerRedis(url, onError, true)
      return { connection: redis, factory, cut }
    },
    worker: () => {
      const { redis, cut } = createWorkerRedis(url, onError)
      return { connection: redis, factory, cut }
    },
  }
}

const STATEMENT_MS = 5_000
/** BullMQ waits for an answer for ever, also from a peer that has vanished; Postgres itself stops a statement before. */
const UNANSWERED_MS = 6_500

/** Connections of a lane's worker at most: its listener, and queries that are short whatever the concurrency. */
const WORKER_POOL = 5

const postgresLinks = (url: string, onError: (error: Error) => void): Links => {
  const factory = createPostgresBackend as unknown as BackendFactory<Store, unknown>
  const link = (name: string, max: number): Link => {
    const pool = new pg.Pool({
      connectionString: url,
      application_name: `curfew-queue-${name}`,
      max,
      connectionTimeoutMillis: 2_000,
      keepAlive: true,
      options: `-c search_path=bullmq -c statement_timeout=${STATEMENT_MS}`,
      Client: deadlineClient(UNANSWERED_MS),
    })
    pool.on('error', onError)
    return { connection: pool, factory, cut: () => void pool.end().catch(onError) }
  }
  return {
    producer: () => link('producer', 3),
    events: () => link('events', 2),
    worker: (concurrency) => link('worker', Math.min(concurrency + 2, WORKER_POOL)),
  }
}
