/**
 * One line and one worker over a real store, ending real sessions in a real Postgres; with gates to hold a commit
 * back, and with hands in the store for whoever wants to interfere.
 */
import { randomBytes, randomUUID } from 'node:crypto'
import { Queue, createPostgresBackend } from 'bullmq'
import type { BackendFactory, IQueueBackend } from 'bullmq'
import pg from 'pg'
import { expect } from 'vitest'
import type { TerminateAnswer, TerminateCommand } from '../../src/model.ts'
import { createQueueBackend } from '../../src/queue/backend.ts'
import { createProducer } from '../../src/queue/enqueue.ts'
import { createHeartbeat, createTicks } from '../../src/queue/heartbeat.ts'
import type { QueueSecrets } from '../../src/queue/jobs.ts'
import { KEY_PREFIX, queueName } from '../../src/queue/lanes.ts'
import type { LaneName } from '../../src/queue/lanes.ts'
import { createLine } from '../../src/queue/line.ts'
import type { LineDeps } from '../../src/queue/line.ts'
import { createResults } from '../../src/queue/results.ts'
import { createWorkers } from '../../src/queue/workers.ts'
import type { Handlers } from '../../src/queue/workers.ts'
import { openDatabase } from '../../src/store/postgres.ts'
import { readTerminated, terminateSessions } from '../../src/store/terminations.ts'
import { createTelemetry } from '../../src/telemetry.ts'
import type { TestDatabase } from '../harness/postgres.ts'
import { createDatabase } from '../harness/postgres.ts'
import { startRedis } from '../harness/redis.ts'
import type { TestRedis } from '../harness/redis.ts'
import { ISSUER, command } from '../harness/seed.ts'

export type Kind = 'redis' | 'postgres'

/** What a test file holds for all its rigs. */
export interface Ground {
  readonly kind: Kind
  readonly database: TestDatabase
  readonly redis: TestRedis | null
  clear(): Promise<void>
  close(): Promise<void>
}

export const prepareGround = async (kind: Kind): Promise<Ground> => {
  const database = await createDatabase()
  const redis = kind === 'redis' ? await startRedis() : null
  return {
    kind,
    database,
    redis,
    clear: async () => {
      await redis?.client.flushall()
      await database.sql.query('TRUNCATE bullmq.job, bullmq.event, bullmq.dedup, bullmq.dedup_next CASCADE')
    },
    close: async () => {
      await redis?.stop()
      await database.drop()
    },
  }
}

export const newSecret = (): QueueSecrets => ({ secret: randomBytes(32), secretPrevious: null })

/** Live sessions with ids of their own, written straight into the table. */
export const liveSessions = async ({ database }: Ground, count: number): Promise<string[]> => {
  const ids = Array.from({ length: count }, () => randomUUID())
  await database.sql.query(
    `INSERT INTO sessions (id, issuer, user_id, resource_owner, sequence, registration_hash, creator_issuer, creator_subject, born, created_at, change_date, expires_at)
     SELECT id, $2, 'u1', 'o1', 1, 'seed', $2, 'seeder', now(), now(), date_trunc('milliseconds', now()), now() + interval '1 hour' FROM unnest($1::text[]) AS id`,
    [ids, ISSUER],
  )
  return ids
}

/** The details of the committed termination, as the tables have them. */
export const committedDetails = async ({ database }: Ground, id: string) => {
  const { rows } = await database.sql.query<{ sequence: string; at: string; owner: string; events: string }>(
    `SELECT s.sequence, to_char(s.terminated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS at, s.resource_owner AS owner,
       (SELECT count(*) FROM session_events e WHERE e.session_id = s.id AND e.type = 'session.terminated') AS events
     FROM sessions s WHERE s.id = $1`,
    [id],
  )
  const [row] = rows
  return { details: { sequence: row?.sequence, changeDate: row?.at, resourceOwner: row?.owner }, events: Number(row?.events) }
}

/** Every answer is the committed event's, and there is exactly one event. */
export const expectTruth = async (ground: Ground, ids: readonly string[], answers: readonly TerminateAnswer[]) => {
  for (const [at, id] of ids.entries()) {
    const { details, events } = await committedDetails(ground, id)
    expect(events).toBe(1)
    expect(answers[at]).toEqual({ outcome: expect.stringMatching(/^(ended|before)$/), details })
  }
}

export interface Gate {
  close(): void
  open(): void
  pass(): Promise<void>
}

const createGate = (): Gate => {
  let opened = Promise.resolve()
  let open: () => void = () => undefined
  return {
    close: () => { opened = new Promise((resolve) => { open = resolve }) },
    open: () => open(),
    pass: () => opened,
  }
}

type RigOptions = Partial<Pick<LineDeps, 'commit' | 'maxWaiting' | 'queueFrom' | 'commitWaitMs' | 'stopWithinMs'>> & {
  readonly secrets?: QueueSecrets
  readonly workerSecrets?: QueueSecrets
  readonly handlers?: Partial<Handlers>
}

export type Rig = Awaited<ReturnType<typeof createRig>>

export const createRig = async (ground: Ground, options: RigOptions = {}) => {
  const { kind, database, redis } = ground
  const { log, metrics } = createTelemetry({ level: 'silent' })
  const db = openDatabase({ url: database.url, name: 'test', max: 6 })
  const backend = createQueueBackend({ redisUrl: redis?.url ?? null, databaseUrl: database.url, log })
  const secrets = options.secrets ?? newSecret()
  const workerGate = createGate()
  const ownGate = createGate()
  /** Batches that a worker was given, and that this process committed by itself. */
  const worked: TerminateCommand[][] = []
  const own: TerminateCommand[][] = []
  const terminate = async (commands: readonly TerminateCommand[]) => [...(await terminateSessions(db, commands)).answers]

  const producer = createProducer({ backend, secrets, log })
  const results = createResults({ backend, secrets, metrics, log })
  const heartbeat = redis === null ? createTicks() : createHeartbeat({ redisUrl: redis.url, log })
  const line = createLine({
    kind,
    producer,
    results,
    heartbeat,
    commit: async (commands) => {
      own.push([...commands])
      await ownGate.pass()
      return (options.commit ?? terminate)(commands)
    },
    readTerminated: (commands) => readTerminated(db, commands),
    maxWaiting: options.maxWaiting ?? 5_000,
    queueFrom: options.queueFrom ?? 1,
    commitWaitMs: options.commitWaitMs ?? 10_000,
    stopWithinMs: options.stopWithinMs ?? 1_000,
    metrics,
    log,
  })
  const openWorkers = () =>
    createWorkers({
      backend,
      secrets: options.workerSecrets ?? secrets,
      handlers: {
        interactive: async (commands) => {
          worked.push([...commands])
          await workerGate.pass()
          return (options.handlers?.interactive ?? terminate)(commands)
        },
        bulk: options.handlers?.bulk ?? (async () => undefined),
        route: options.handlers?.route ?? (async () => undefined),
        deliver: options.handlers?.deliver ?? (async () => undefined),
      },
      stopWithinMs: 1_500,
      metrics,
      log,
    })
  let workers = openWorkers()
  await producer.start()
  await results.start()
  await line.start()
  await workers.start()

  const refused = async () => {
    const { values } = await metrics.curfew_jobs_refused_total.get()
    return Object.fromEntries(values.map(({ labels, value }) => [`${labels['lane']}:${labels['reason']}`, value]))
  }

  return {
    ...options,
    line,
    producer,
    secrets,
    metrics,
    worked,
    own,
    workerGate,
    ownGate,
    refused,
    ask: (id: string, change: Partial<TerminateCommand> = {}) => line.ask(command(id, change)),
    askAll: (ids: readonly string[]) => Promise.all(ids.map((id) => line.ask(command(id)))),
    untilAvailable: () => expect.poll(() => line.available(), { timeout: 15_000 }).toBe(true),
    stopWorkers: () => workers.stop(),
    startWorkers: async () => {
      workers = openWorkers()
      await workers.start()
    },
    stop: async () => {
      workerGate.open()
      ownGate.open()
      await line.stop()
      await workers.stop()
      await results.stop()
      await producer.stop()
      await db.$disconnect()
    },
  }
}

/** A producer of anyone's making, who can write to the store but knows no secret. */
export const openIntruder = ({ database, redis }: Ground, lane: LaneName = 'interactive') => {
  const name = queueName(lane)
  const pool = new pg.Pool({ connectionString: database.url, max: 2, options: '-c search_path=bullmq' })
  pool.on('error', () => undefined)
  const queue: Queue<unknown, unknown, string, unknown, unknown, string, IQueueBackend, unknown> =
    redis === null
      ? new Queue(name, { connection: pool, skipMetasUpdate: true }, createPostgresBackend as unknown as BackendFactory<IQueueBackend, unknown>)
      : (new Queue(name, { connection: redis.client, prefix: KEY_PREFIX, skipMetasUpdate: true }) as unknown as typeof queue)
  queue.on('error', () => undefined)
  const key = (part: string) => `${KEY_PREFIX}:${name}:${part}`
  return {
    queue,
    key,
    /** Writes a result as BullMQ would; `returnvalue` is the text as it stands in the store. */
    async publish(event: 'completed' | 'failed', fields: Record<string, string>): Promise<void> {
      if (redis !== null) {
        await redis.client.xadd(key('events'), '*', 'event', event, ...Object.entries(fields).flat())
        return
      }
      await pool.query('INSERT INTO event (queue, event, data, created_at_ms) VALUES ($1, $2, $3, 0)', [name, event, JSON.stringify(fields)])
      await pool.query(`SELECT pg_notify('bullmq_events', $1)`, [name])
    },
    /** Every completed result in the store: job id and text. */
    async published(): Promise<{ jobId: string; returnvalue: string }[]> {
      if (redis !== null) {
        const entries = await redis.client.xrange(key('events'), '-', '+')
        return entries.map(([, fields]) => toRecord(fields)).filter(({ event }) => event === 'completed') as never
      }
      const { rows } = await pool.query<{ data: { jobId: string; returnvalue: string } }>(`SELECT data FROM event WHERE queue = $1 AND event = 'completed' ORDER BY id`, [name])
      return rows.map(({ data }) => data)
    },
    async eventsKept(): Promise<number> {
      if (redis !== null) return redis.client.xlen(key('events'))
      const { rows } = await pool.query<{ count: string }>('SELECT count(*) FROM event WHERE queue = $1', [name])
      return Number(rows[0]?.count)
    },
    async close(): Promise<void> {
      if (redis === null) await queue.close()
      await pool.end()
    },
  }
}

const toRecord = (flat: readonly string[]): Record<string, string> => {
  const record: Record<string, string> = {}
  for (let at = 0; at + 1 < flat.length; at += 2) record[flat[at] ?? ''] = flat[at + 1] ?? ''
  return record
}
