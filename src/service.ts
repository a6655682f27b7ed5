/**
 * The composition root: every part is made once, here, in the order in which a request meets it, and given only what
 * it uses. Nothing outside this file knows which parts there are.
 *
 * `start` opens from the bottom up and `stop` closes in the reverse order: the listener first, then what was
 * accepted is answered, then workers, then connections. Nobody outside can hold a stop up. Both may be repeated.
 */
import type { AddressInfo } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import { buildOpsServer } from './api/ops.ts'
import type { Readiness } from './api/routes/health.ts'
import { createCacheChannel } from './channels/cache.ts'
import { createSigner } from './channels/signing.ts'
import { createStreamChannel } from './channels/stream.ts'
import { createWebhookSecrets } from './channels/webhook-secret.ts'
import type { Config } from './config.ts'
import { createKeyring } from './keys.ts'
import { createAnnounceRules } from './outbox/announce-rules.ts'
import { createEnforcement } from './outbox/enforce.ts'
import { createQueueBackend } from './queue/backend.ts'
import { createProducer } from './queue/enqueue.ts'
import { openDatabase } from './store/postgres.ts'
import { createPlainRedis } from './store/redis.ts'
import { createTelemetry } from './telemetry.ts'
import type { Telemetry } from './telemetry.ts'
import { createTerminate } from './termination/terminate.ts'
import type { Terminate } from './termination/terminate.ts'
import { createApiRole } from './service/api-role.ts'
import type { Ground, Part } from './service/ground.ts'
import { createWorkerRole } from './service/worker-role.ts'

export interface Service {
  /** Opens everything and listens. Resolves with where, or null for what this process does not serve. */
  start(): Promise<{ apiUrl: string | null; opsUrl: string | null }>
  /** Closes everything, each part within a bound of its own. */
  stop(): Promise<void>
}

/** Enough for the just-in-time compiler to have seen the way once; a few milliseconds each. */
const WARM_UP_COMMITS = 5

/** The part of a stop's time that requests under way are given; the rest is for the parts beneath them. */
const ANSWERING_PART = 0.4

/** Makes the service of one process for the roles that the configuration names. Opens nothing yet. */
export const createService = async (config: Config, options: { telemetry?: Telemetry } = {}): Promise<Service> => {
  const telemetry = options.telemetry ?? createTelemetry({ level: config.logLevel })
  const { log, metrics, registry } = telemetry
  const parts: Part[] = []
  const onError = (what: string) => (error: Error) => log.warn({ event: 'connection.failed', what, err: error }, 'an idle connection failed')

  const database: Ground['database'] = (name, bounds = {}) => {
    const opened = openDatabase({ url: config.database.url, name, max: config.database.poolSize, onIdleError: onError('postgres'), ...bounds })
    parts.push({ stop: () => opened.$disconnect() })
    return opened
  }
  const redis = (url: string | null) => {
    if (url === null) return null
    const opened = createPlainRedis(url, onError('redis'))
    parts.push({ stop: async () => opened.disconnect() })
    return opened
  }

  const commits = database('commit')
  const backend = createQueueBackend({ redisUrl: config.redisUrl, databaseUrl: config.database.url, log })
  const producer = createProducer({ backend, secrets: config.queue, log })
  parts.push(producer)
  const tombstones = redis(config.redisUrl)
  const cache = config.cache.redisUrl === config.redisUrl ? tombstones : redis(config.cache.redisUrl)
  const channel = createCacheChannel({ cache, keyTemplates: config.cache.keyTemplates })
  const stopping = new AbortController()
  const { secondDeleteSeconds, maxTokenLifetimeSeconds } = config.cache
  const stream = tombstones === null ? null : createStreamChannel({ redis: tombstones, maxTokenLifetimeSeconds, now: Date.now })
  const enforcement = createEnforcement({ db: commits, channel, stream, secondDeleteSeconds, signal: stopping.signal, metrics, log })
  parts.push(enforcement)
  // Without a worker's router in this process, one elsewhere is woken through the queue.
  const router = { wake: () => producer.wake('route', 'all') }
  const terminate = createTerminate({ db: commits, enforce: enforcement.enforce, wakeRoute: () => router.wake(), log })
  const keyring = createKeyring(config.keys)
  const signer = createSigner({ db: commits, keyring, ...config.keys.rotation })
  const secrets = createWebhookSecrets(keyring)
  const announceRules = createAnnounceRules({ db: commits, stream, log })
  const ground: Ground = { config, telemetry, backend, producer, database, stopping: stopping.signal, router, terminate, enforcement, stream, announceRules, signer, secrets }

  const state = { draining: false, queueAvailable: () => true }
  const ready = async (): Promise<Readiness> => {
    const postgres = await commits.$queryRawUnsafe('SELECT 1 WHERE NOT pg_is_in_recovery()').then((rows) => (rows as unknown[]).length === 1, () => false)
    const queue = state.queueAvailable() ? 'ok' : 'away'
    return { postgres: postgres ? 'ok' : 'away', queue, draining: state.draining }
  }

  if (config.roles.includes('worker')) parts.push(...createWorkerRole(ground))
  const api = config.roles.includes('api') ? createApiRole(ground, ready) : null
  if (api !== null) {
    parts.push(...api.parts)
    state.queueAvailable = api.queueAvailable
  }
  const ops = buildOpsServer({ registry, log, ready })

  return {
    start: async () => {
      await warmUp(terminate, log)
      for (const part of parts) await part.start?.()
      const { host, port, opsHost, opsPort } = config.http
      const apiUrl = api === null ? null : await listen(api.server, host, port)
      return { apiUrl, opsUrl: await listen(ops, opsHost, opsPort) }
    },
    stop: async () => {
      state.draining = true
      stopping.abort()
      const closed = api?.server.close()
      await Promise.race([closed, pause(ANSWERING_PART * config.shutdownTimeoutMs, undefined, { ref: false })])
      for (const part of parts.toReversed()) {
        await part.stop().catch((error: unknown) => log.error({ event: 'service.part_not_stopped', err: error }, 'a part did not stop cleanly'))
      }
      // Whoever has not finished asking by now, or not read the answer, is cut off: nothing here could answer.
      api?.server.server.closeAllConnections()
      await closed
      await ops.close()
    },
  }
}

/** Connects, plans and compiles what the first DELETE would otherwise wait for. An empty id is nobody's session. */
const warmUp = async (terminate: Terminate, log: Telemetry['log']): Promise<void> => {
  const nobody = { sessionId: '', issuers: [], actor: { issuer: '', subject: '' }, mode: 'logout', reason: null } as const
  try {
    for (let n = 0; n < WARM_UP_COMMITS; n++) await terminate([nobody])
  } catch (error) {
    log.warn({ event: 'service.cold', err: error }, 'could not warm up')
  }
}

const listen = async (server: FastifyInstance, host: string, port: number): Promise<string> => {
  await server.listen({ host, port })
  const bound = server.server.address() as AddressInfo
  return `http://${bound.family === 'IPv6' ? `[${bound.address}]` : bound.address}:${bound.port}`
}
