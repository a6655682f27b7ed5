/**
 * The composition root: every part is made once, here, in the order in which a request meets it, and given only what
 * it uses. Nothing outside this file knows which parts there are.
 *
 * `start` opens from the bottom up and `stop` closes in the reverse order: the listener first, then what was
 * accepted is answered, then workers, then connections. Both may be repeated.
 */
import type { AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import { buildOpsServer } from './api/ops.ts'
import type { Readiness } from './api/routes/health.ts'
import { buildServer } from './api/server.ts'
import { createAuthenticate } from './auth/authenticate.ts'
import { createAuthorizeEnd } from './auth/authorize-end.ts'
import { createDeadUseCounter } from './auth/dead-use-counter.ts'
import { createJudgeToken } from './auth/judge-token.ts'
import { createLimits } from './auth/limits.ts'
import { createRefuseDeadToken } from './auth/own-session.ts'
import { createRulesInForce } from './auth/rules-in-force.ts'
import { createTrust } from './auth/trust.ts'
import { createBackchannelLogout } from './channels/backchannel-logout.ts'
import { createCacheChannel } from './channels/cache.ts'
import { createSigner } from './channels/signing.ts'
import type { Signer } from './channels/signing.ts'
import { createStreamChannel } from './channels/stream.ts'
import type { StreamChannel } from './channels/stream.ts'
import type { Config } from './config.ts'
import { checkReceiverUrl } from './delivery/address.ts'
import { createDeliver } from './delivery/deliver.ts'
import { createKeyring } from './keys.ts'
import { createEnforcement } from './outbox/enforce.ts'
import { createKeepStream } from './outbox/keep-stream.ts'
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
import { pruneRules, readRulesAfter, refreshRulePlans } from './store/cutoff-rules.ts'
import { pruneDeadUses, readDeadUses, recordDeadUses } from './store/dead-uses.ts'
import { listDeliveries, readSettled } from './store/deliveries.ts'
import { openDatabase } from './store/postgres.ts'
import type { Database } from './store/postgres.ts'
import { deleteReceiver, getReceiver, listReceivers, putReceiver } from './store/receivers.ts'
import { createPlainRedis } from './store/redis.ts'
import { createSessionStore } from './store/sessions.ts'
import { givePositions, readEntries, readHead, readTombstones } from './store/stream.ts'
import { readTerminated } from './store/terminations.ts'
import { createTelemetry } from './telemetry.ts'
import type { Telemetry } from './telemetry.ts'
import { createTerminate } from './termination/terminate.ts'
import type { Terminate } from './termination/terminate.ts'
import { createUpkeep } from './upkeep/upkeep.ts'

export interface Service {
  /** Opens everything and listens. Resolves with where, or null for what this process does not serve. */
  start(): Promise<{ apiUrl: string | null; opsUrl: string | null }>
  /** Closes everything, each part within a bound of its own. */
  stop(): Promise<void>
}

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
  /** Who is woken after a commit; a worker puts its own router here. */
  readonly router: { wake: () => void }
  readonly terminate: Terminate
  readonly enforcement: ReturnType<typeof createEnforcement>
  readonly stream: StreamChannel | null
  readonly signer: Signer
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
  const channel = createCacheChannel({ cache, keyTemplates: config.cache.keyTemplates })
  const { maxTokenLifetimeSeconds } = config.sessions
  const stream = tombstones === null ? null : createStreamChannel({ redis: tombstones, maxTokenLifetimeSeconds, now: Date.now })
  const enforcement = createEnforcement({ db: commits, channel, stream, secondDeleteSeconds: config.cache.secondDeleteSeconds, metrics, log })
  parts.push(enforcement)
  // Without a worker's router in this process, one elsewhere is woken through the queue.
  const router = { wake: () => producer.wake('route', 'all') }
  const terminate = createTerminate({ db: commits, enforce: enforcement.enforce, wakeRoute: () => router.wake(), log })
  const signer = createSigner({ db: commits, keyring: createKeyring(config.keys) })
  const ground: Ground = { config, telemetry, backend, producer, database, router, terminate, enforcement, stream, signer }

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
      for (const part of parts) await part.start?.()
      const { host, port, opsHost, opsPort } = config.http
      const apiUrl = api === null ? null : await listen(api.server, host, port)
      return { apiUrl, opsUrl: await listen(ops, opsHost, opsPort) }
    },
    stop: async () => {
      state.draining = true
      await api?.server.close()
      for (const part of parts.toReversed()) {
        await part.stop().catch((error: unknown) => log.error({ event: 'service.part_not_stopped', err: error }, 'a part did not stop cleanly'))
      }
      await ops.close()
    },
  }
}

/** Commits batches, plans deliveries, delivers, and looks after what was missed. */
const createWorkerRole = ({ config, telemetry, backend, producer, database, router, terminate, enforcement, stream, signer }: Ground): Part[] => {
  const { log, metrics } = telemetry
  const background = database('worker')
  const wakeReceiver = (receiverId: string) => producer.wake('deliver', receiverId)
  const route = createRoute({ db: background, wakeReceiver, maxTokenLifetimeSeconds: config.sessions.maxTokenLifetimeSeconds })
  const routeSoon = createRouteSoon({ route, log })
  router.wake = routeSoon.wake
  const deliver = createDeliver({
    db: background,
    channels: { backchannel_logout: createBackchannelLogout({ sign: signer.sign, now: Date.now }) },
    ...config.delivery,
    metrics,
    log,
  })
  const { maxLifetimeSeconds: maxSessionLifetimeSeconds, maxTokenLifetimeSeconds } = config.sessions
  const keepStream = createKeepStream({ db: background, stream, maxSessionLifetimeSeconds, maxTokenLifetimeSeconds, log })
  const upkeep = createUpkeep({
    db: background,
    route,
    wakeReceiver,
    deliver: deliver.deliver,
    enforcePending: enforcement.enforcePending,
    enforceAgain: enforcement.enforceAgain,
    keepStream: keepStream.tick,
    refreshPlans: () => refreshRulePlans(background),
    prune: (limit) => prune(background, { retentionSeconds: config.sessions.retentionSeconds, limit }),
    depth: producer.depth,
    horizonSeconds: config.delivery.horizonSeconds,
    metrics,
    log,
  })
  const workers = createWorkers({
    backend,
    secrets: config.queue,
    handlers: { interactive: terminate, route, deliver: deliver.deliver },
    metrics,
    log,
  })
  return [deliver, routeSoon, upkeep, workers]
}

/** Answers requests: who asks, may they, the line, the answer. */
const createApiRole = ({ config, telemetry, backend, producer, database, terminate, signer }: Ground, ready: () => Promise<Readiness>) => {
  const { log, metrics } = telemetry
  const reads = database('api')
  const read = createAuthorizationReader(reads)
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
    metrics,
    log,
  })
  const wakeReceivers = (ids: readonly string[]) => {
    for (const id of ids) producer.wake('deliver', id)
  }
  const rules = createRulesInForce({ read: (asked) => readRulesAfter(reads, asked), log })
  const deadUses = createDeadUseCounter({ record: (uses) => recordDeadUses(reads, { uses, issuers: null }), log })
  const { count } = deadUses
  const trust = createTrust({ issuers: config.issuers, log })
  const issuers = new Set(config.issuers.flatMap(({ issuer, sessionIssuers }) => sessionIssuers ?? [issuer]))
  const { maxLifetimeSeconds, maxTokenLifetimeSeconds } = config.sessions
  // A day more, so that no clock that differs a little counts.
  const livesMs = (maxLifetimeSeconds + maxTokenLifetimeSeconds + 86_400) * 1_000
  const server = buildServer({
    authenticate: createAuthenticate({ trust, log }),
    refuseDeadToken: createRefuseDeadToken({ read, rules, count }),
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
    },
    stream: {
      readHead: () => readHead(reads),
      givePositions: () => givePositions(reads),
      readEntries: (asked) => readEntries(reads, { ...asked, maxTokenLifetimeSeconds }),
      readTombstones: ({ before }) => readTombstones(reads, { before, sinceMs: Date.now() - livesMs, maxTokenLifetimeSeconds }),
      readRulesAfter: (asked) => readRulesAfter(reads, asked),
      log,
    },
    introspect: { judgeToken: createJudgeToken({ trust, read, count, log }) },
    attempts: {
      recordDeadUses: (asked) => recordDeadUses(reads, asked),
      readDeadUses: (asked) => readDeadUses(reads, asked),
    },
    telemetry,
    http: config.http,
  })
  return { server, parts: [rules, deadUses, results, line] satisfies Part[], queueAvailable: line.available }
}

const prune = async (db: Database, asked: { retentionSeconds: number; limit: number }): Promise<number> =>
  (await pruneRules(db, asked)) + (await pruneDeadUses(db, asked))

const listen = async (server: FastifyInstance, host: string, port: number): Promise<string> => {
  await server.listen({ host, port })
  const bound = server.server.address() as AddressInfo
  return `http://${bound.family === 'IPv6' ? `[${bound.address}]` : bound.address}:${bound.port}`
}
