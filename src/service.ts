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
import { buildServer } from './api/server.ts'
import { createAuthenticate } from './auth/authenticate.ts'
import { createAuthorizeEnd } from './auth/authorize-end.ts'
import { createFetchJson } from './auth/fetch-json.ts'
import { createLimits } from './auth/limits.ts'
import { createRefuseDeadToken } from './auth/own-session.ts'
import { createBackchannelLogout } from './channels/backchannel-logout.ts'
import { createCacheChannel } from './channels/cache.ts'
import { createSigner } from './channels/signing.ts'
import type { Signer } from './channels/signing.ts'
import { createWebhook } from './channels/webhook.ts'
import { createWebhookSecrets } from './channels/webhook-secret.ts'
import type { WebhookSecrets } from './channels/webhook-secret.ts'
import type { Config } from './config.ts'
import { checkReceiverUrl } from './delivery/address.ts'
import { createDeliver } from './delivery/deliver.ts'
import { createVerification } from './delivery/verification.ts'
import { createKeyring } from './keys.ts'
import { createEnforcement } from './outbox/enforce.ts'
import { createRouteSoon } from './outbox/route-soon.ts'
import { createRoute } from './outbox/route.ts'
import { createQueueBackend } from './queue/backend.ts'
import type { QueueBackend } from './queue/backend.ts'
import { createProducer } from './queue/enqueue.ts'
import type { Producer } from './queue/enqueue.ts'
import { createHeartbeat, createTicks } from './queue/heartbeat.ts'
import { createLine } from './queue/line.ts'
import { createResults } from './queue/results.ts'
import { createWorkers } from './queue/workers.ts'
import { createAuthorizationReader } from './store/authorization.ts'
import { listDeliveries, readSettled } from './store/deliveries.ts'
import { openDatabase } from './store/postgres.ts'
import type { Database } from './store/postgres.ts'
import { deleteReceiver, getReceiver, listReceivers, putReceiver } from './store/receivers.ts'
import { redeliverAll, redeliverOne } from './store/redelivery.ts'
import { createPlainRedis } from './store/redis.ts'
import { createSessionStore } from './store/sessions.ts'
import { readTerminated } from './store/terminations.ts'
import { rotateSecret } from './store/webhook-secrets.ts'
import { createTelemetry } from './telemetry.ts'
import type { Telemetry } from './telemetry.ts'
import { createTerminate } from './termination/terminate.ts'
import type { Terminate } from './termination/terminate.ts'
import { createPruning } from './upkeep/prune.ts'
import { createUpkeep } from './upkeep/upkeep.ts'

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

interface Part {
  start?(): Promise<void>
  stop(): Promise<void>
}

/** What both roles are made from. */
interface Ground {
  readonly config: Config
  readonly telemetry: Telemetry
  readonly backend: QueueBackend
  readonly producer: Producer
  readonly database: (name: string) => Database
  /** Aborted when a stop begins: long work ends where it can be taken up again. */
  readonly stopping: AbortSignal
  /** Who is woken after a commit; a worker puts its own router here. */
  readonly router: { wake: () => void }
  readonly terminate: Terminate
  readonly enforcement: ReturnType<typeof createEnforcement>
  readonly signer: Signer
  readonly secrets: WebhookSecrets
}

/** Makes the service of one process for the roles that the configuration names. Opens nothing yet. */
export const createService = async (config: Config, options: { telemetry?: Telemetry } = {}): Promise<Service> => {
  const telemetry = options.telemetry ?? createTelemetry({ level: config.logLevel })
  const { log, metrics, registry } = telemetry
  const parts: Part[] = []
  const onError = (what: string) => (error: Error) => log.warn({ event: 'connection.failed', what, err: error }, 'an idle connection failed')

  const database = (name: string): Database => {
    const opened = openDatabase({ url: config.database.url, name, max: config.database.poolSize, onIdleError: onError('postgres') })
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
  const channel = createCacheChannel({ ...config.cache, tombstones, cache, now: Date.now })
  const stopping = new AbortController()
  const enforcement = createEnforcement({ db: commits, channel, ...config.cache, signal: stopping.signal, metrics, log })
  parts.push(enforcement)
  // Without a worker's router in this process, one elsewhere is woken through the queue.
  const router = { wake: () => producer.wake('route', 'all') }
  const terminate = createTerminate({ db: commits, enforce: enforcement.enforce, wakeRoute: () => router.wake(), log })
  const keyring = createKeyring(config.keys)
  const signer = createSigner({ db: commits, keyring, ...config.keys.rotation })
  const secrets = createWebhookSecrets(keyring)
  const ground: Ground = { config, telemetry, backend, producer, database, stopping: stopping.signal, router, terminate, enforcement, signer, secrets }

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

/** By receiver type. */
const remoteChannels = ({ signer, secrets }: Pick<Ground, 'signer' | 'secrets'>) => ({
  backchannel_logout: createBackchannelLogout({ sign: signer.sign, now: Date.now }),
  webhook: createWebhook({ openSecret: secrets.open, now: Date.now }),
})

/** Commits batches, plans deliveries, delivers, and looks after what was missed. */
const createWorkerRole = ({ config, telemetry, backend, producer, database, stopping, router, terminate, enforcement, signer, secrets }: Ground): Part[] => {
  const { log, metrics } = telemetry
  const background = database('worker')
  const wakeReceiver = (receiverId: string) => producer.wake('deliver', receiverId)
  const route = createRoute({ db: background, wakeReceiver, ...config.sessions, signal: stopping })
  const routeSoon = createRouteSoon({ route, log })
  router.wake = routeSoon.wake
  const deliver = createDeliver({
    db: background,
    channels: remoteChannels({ signer, secrets }),
    ...config.delivery,
    metrics,
    log,
  })
  const upkeep = createUpkeep({
    db: background,
    route,
    wakeReceiver,
    deliver: deliver.deliver,
    enforcePending: enforcement.enforcePending,
    enforceAgain: enforcement.enforceAgain,
    depth: producer.depth,
    horizonSeconds: config.delivery.horizonSeconds,
    metrics,
    log,
  })
  const pruning = createPruning({
    db: background,
    deliverySeconds: config.delivery.retentionSeconds,
    sessionSeconds: config.sessions.retentionSeconds,
    maxTokenLifetimeSeconds: config.sessions.maxTokenLifetimeSeconds,
    log,
  })
  const workers = createWorkers({
    backend,
    secrets: config.queue,
    handlers: { interactive: terminate, route, deliver: deliver.deliver },
    metrics,
    log,
  })
  return [deliver, routeSoon, upkeep, pruning, workers]
}

/** Answers requests: who asks, may they, the line, the answer. */
const createApiRole = ({ config, telemetry, backend, producer, database, terminate, signer, secrets }: Ground, ready: () => Promise<Readiness>) => {
  const { log, metrics } = telemetry
  const reads = database('api')
  const read = createAuthorizationReader(reads, { maxWaiting: config.queue.maxWaiting })
  const results = createResults({ backend, secrets: config.queue, metrics, log })
  const line = createLine({
    kind: backend.kind,
    producer,
    results,
    heartbeat: config.redisUrl === null ? createTicks() : createHeartbeat({ redisUrl: config.redisUrl, log }),
    commit: terminate,
    readTerminated: (commands) => readTerminated(reads, commands),
    maxWaiting: config.queue.maxWaiting,
    commitWaitMs: config.queue.commitWaitMs,
    // A stop has given the requests their time before it comes to the line.
    stopWithinMs: 0,
    metrics,
    log,
  })
  const wakeReceivers = (ids: readonly string[]) => {
    for (const id of ids) producer.wake('deliver', id)
  }
  const issuers = new Set(config.issuers.flatMap(({ issuer, sessionIssuers }) => sessionIssuers ?? [issuer]))
  const verification = createVerification({
    db: reads,
    channels: remoteChannels({ signer, secrets }),
    currentKey: signer.currentKey,
    jwksUris: new Map(config.issuers.flatMap(({ issuer, jwksUri }) => (jwksUri === undefined ? [] : [[issuer, jwksUri] as const]))),
    fetchJson: createFetchJson(fetch),
    ...config.delivery,
    log,
  })
  const server = buildServer({
    authenticate: createAuthenticate({ issuers: config.issuers, log }),
    refuseDeadToken: createRefuseDeadToken({ read }),
    limits: createLimits(config.limits),
    authorizeEnd: createAuthorizeEnd({ read }),
    ask: line.ask,
    readSettled: (sessionIds) => readSettled(reads, sessionIds),
    issuers,
    publicJwks: signer.publicJwks,
    ready,
    sessionRoutes: { sessions: createSessionStore({ db: reads, ...config.sessions }), wakeReceivers, cacheKeyPrefixes: config.cache.keyPrefixes },
    receivers: {
      putReceiver: (asked) => putReceiver(reads, asked),
      getReceiver: (asked) => getReceiver(reads, asked),
      listReceivers: (asked) => listReceivers(reads, asked),
      deleteReceiver: (asked) => deleteReceiver(reads, asked),
      listDeliveries: (asked) => listDeliveries(reads, asked),
      checkReceiverUrl: (url) => checkReceiverUrl(url, config.delivery.allowPrivateReceivers),
      ensureKey: signer.ensureKey,
      makeSecret: secrets.make,
      rotateSecret: (asked) => rotateSecret(reads, asked),
      verify: verification.verify,
      redeliverAll: (asked) => redeliverAll(reads, { ...asked, horizonSeconds: config.delivery.horizonSeconds }),
      redeliverOne: (asked) => redeliverOne(reads, { ...asked, horizonSeconds: config.delivery.horizonSeconds }),
      wakeReceiver: (id) => producer.wake('deliver', id),
    },
    telemetry,
    http: config.http,
  })
  return { server, parts: [results, verification, line] satisfies Part[], queueAvailable: line.available }
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
