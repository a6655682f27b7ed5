/**
 * Real processes over a real Postgres and a real Redis of their own, for breaking: an API process, a worker process,
 * as many more as a test starts, an issuer, and what the tables say became of it all.
 */
import { randomUUID } from 'node:crypto'
import { expect, vi } from 'vitest'
import { KEY_PREFIX, queueName } from '../../src/queue/lanes.ts'
import type { LaneName } from '../../src/queue/lanes.ts'
import type { Details } from '../../src/model.ts'
import { startIssuer } from '../harness/issuer.ts'
import type { TestIssuer } from '../harness/issuer.ts'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'
import { settingsFor, startProcess } from '../harness/processes.ts'
import type { ServiceProcess } from '../harness/processes.ts'
import { startRedis } from '../harness/redis.ts'
import type { TestRedis } from '../harness/redis.ts'
import { seedSessions } from '../harness/seed.ts'
import type { SeedSession } from '../harness/seed.ts'

export interface Answer {
  readonly status: number
  readonly body: { readonly details?: Details; readonly code?: number; readonly [field: string]: unknown }
  readonly headers: Headers
  readonly ms: number
}

/** The promise is 500 ms (DESIGN §12), the rest a busy test machine's; without the heartbeat it would be 10 s. */
export const WORST_ANSWER_MS = 3_000

/** The processes' own deadline, and what a busy test machine may add to it. */
export const SHUTDOWN_TIMEOUT_MS = 8_000
const SHUTDOWN_SLACK_MS = 4_000

/** SIGTERM; returns the exit code of a process that ended by its own deadline. */
export const stopInTime = async (process: ServiceProcess): Promise<number | null> => {
  const since = performance.now()
  const code = await process.stop()
  expect(performance.now() - since).toBeLessThan(SHUTDOWN_TIMEOUT_MS + SHUTDOWN_SLACK_MS)
  return code
}

export type Cluster = Awaited<ReturnType<typeof startCluster>>

/** @param database, redis of the caller's own instead of fresh ones; `redis: null` puts the queue into Postgres. */
export const startCluster = async (options: {
  database?: TestDatabase
  redis?: TestRedis | null
  settings?: Record<string, string>
  moreIssuers?: readonly unknown[]
} = {}) => {
  const issuer: TestIssuer = await startIssuer()
  const database = options.database ?? (await createDatabase())
  const redis = options.redis === undefined ? await startRedis() : options.redis
  const settings: Record<string, string> = {
    ...settingsFor({ databaseUrl: database.url, redisUrl: redis?.url ?? null, issuers: [issuer.entry(), ...(options.moreIssuers ?? [])] }),
    ...options.settings,
  }
  const token = await issuer.token({ sub: 'admin', permissions: ['session.delete', 'session.write', 'receiver.read', 'receiver.write', 'revocation.read', 'revocation.write'] })
  const started: ServiceProcess[] = []
  const start = async (roles: string, extra: Record<string, string> = {}): Promise<ServiceProcess> => {
    const process = await startProcess({ ...settings, ROLES: roles, ...extra })
    started.push(process)
    return process
  }

  const request = async (api: ServiceProcess, method: string, path: string, body?: unknown): Promise<Answer> => {
    const since = performance.now()
    const response = await fetch(`${api.apiUrl}${path}`, {
      method,
      headers: { authorization: `Bearer ${token}` },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await response.text()
    return { status: response.status, body: JSON.parse(text) as Answer['body'], headers: response.headers, ms: performance.now() - since }
  }

  /** The committed terminations, by session: the details as an answer must have them, and how many events there are. */
  const committed = async (ids: readonly string[]): Promise<Map<string, { details: Details; events: number }>> => {
    const { rows } = await database.sql.query<{ id: string; events: number } & Details>(
      `SELECT session_id AS id, count(*)::int AS events, min(sequence)::text AS sequence, min(resource_owner) AS "resourceOwner",
         to_char(min(created_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS "changeDate"
       FROM session_events WHERE session_id = ANY($1) AND type = 'session.terminated' GROUP BY session_id`,
      [ids],
    )
    return new Map(rows.map(({ id, events, ...details }) => [id, { events, details }]))
  }

  const readiness = async (process: ServiceProcess) =>
    (await (await fetch(`${process.opsUrl}/readyz`)).json()) as { ready: boolean; postgres: string; queue: string; draining: boolean }

  return {
    issuer,
    database,
    redis,
    token,
    settings,
    start,
    request,
    committed,
    readiness,
    end: (api: ServiceProcess, id: string) => request(api, 'DELETE', `/v2/sessions/${id}`),

    /** Live sessions, each with the relying parties `clients`. */
    live: async (count: number, session: Omit<SeedSession, 'id'> = {}): Promise<string[]> => {
      const ids = Array.from({ length: count }, () => randomUUID())
      await seedSessions(database.sql, ids.map((id) => ({ id, issuer: issuer.url, ...session })))
      return ids
    },

    putReceiver: async (api: ServiceProcess, clientId: string, url: string, change: Record<string, unknown> = {}) => {
      const { status } = await request(api, 'PUT', `/v1/receivers/${clientId}`, { type: 'backchannel_logout', url, clientId, ...change })
      expect(status).toBe(201)
    },

    /** Every answer is 200 with the committed event's details, and each session has exactly one such event. */
    expectTruth: async (answers: ReadonlyMap<string, Answer>) => {
      const truth = await committed([...answers.keys()])
      for (const [id, { status, body }] of answers) {
        expect({ status, body }).toEqual({ status: 200, body: { details: truth.get(id)?.details } })
        expect(truth.get(id)?.events).toBe(1)
      }
    },

    /** All that a metric's lines add up to. */
    metric: async (process: ServiceProcess, name: string, labels = ''): Promise<number> => {
      const text = await (await fetch(`${process.opsUrl}/metrics`)).text()
      const lines = text.split('\n').filter((line) => new RegExp(`^${name}[ {]`).test(line) && line.includes(labels))
      return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)
    },

    /** Until a probe has made the round trip, an API process commits by itself. */
    untilQueued: (api: ServiceProcess) =>
      vi.waitFor(async () => expect((await readiness(api)).queue).toBe('ok'), { timeout: 20_000, interval: 50 }),

    /** Every commit handed on, every delivery done, every commit enforced. */
    untilSettled: () =>
      vi.waitFor(async () => {
        const { rows } = await database.sql.query(
          `SELECT (SELECT count(*) FROM commits WHERE routed_at IS NULL)::int AS unrouted,
             (SELECT count(*) FROM commits WHERE enforced_at IS NULL)::int AS unenforced,
             (SELECT count(*) FROM deliveries WHERE state <> 'acknowledged')::int AS untold`)
        expect(rows).toEqual([{ unrouted: 0, unenforced: 0, untold: 0 }])
      }, { timeout: 20_000, interval: 100 }),

    /** A key of a lane in Redis, as BullMQ names it. */
    laneKey: (lane: LaneName, part: string) => `${KEY_PREFIX}:${queueName(lane)}:${part}`,

    stop: async () => {
      redis?.thaw()
      await Promise.all(started.map((process) => process.kill()))
      await redis?.stop()
      if (options.database === undefined) await database.drop()
      await issuer.close()
    },
  }
}

/** The sids that a receiver's logout tokens name. */
export const sidsOf = (tokens: readonly string[]): string[] =>
  tokens.map((token) => (JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) as { sid: string }).sid)
