/**
 * The API role: who asks, may they, the line, the answer.
 */
import type { Readiness } from '../api/routes/health.ts'
import { buildServer } from '../api/server.ts'
import { createAuthenticate } from '../auth/authenticate.ts'
import { createAuthorizeEnd } from '../auth/authorize-end.ts'
import { createFetchJson } from '../auth/fetch-json.ts'
import { createDeadUseCounter } from '../auth/dead-use-counter.ts'
import { createJudgeToken } from '../auth/judge-token.ts'
import { createLimits } from '../auth/limits.ts'
import { createRefuseDeadToken } from '../auth/own-session.ts'
import { createRulesInForce } from '../auth/rules-in-force.ts'
import { createTrust } from '../auth/trust.ts'
import { createSignReport } from '../channels/report-signing.ts'
import { checkReceiverUrl } from '../delivery/address.ts'
import { createVerification } from '../delivery/verification.ts'
import { createHeartbeat, createTicks } from '../queue/heartbeat.ts'
import { createLine } from '../queue/line.ts'
import { createResults } from '../queue/results.ts'
import { createAuthorizationReader } from '../store/authorization.ts'
import { readRulesAfter } from '../store/cutoff-rules.ts'
import { readDeadUses, readDeadUsesOfRevocation, recordDeadUses } from '../store/dead-uses.ts'
import { listDeliveries, readSettled } from '../store/deliveries.ts'
import { deleteReceiver, getReceiver, listReceivers, putReceiver } from '../store/receivers.ts'
import { redeliverAll, redeliverOne } from '../store/redelivery.ts'
import { createReportReads } from '../store/revocation-report.ts'
import { createSessionStore } from '../store/sessions.ts'
import { givePositions, readEntries, readHead, readRetold, readTombstones } from '../store/stream.ts'
import { readTerminated } from '../store/terminations.ts'
import { rotateSecret } from '../store/webhook-secrets.ts'
import { remoteChannels } from './ground.ts'
import { createRevocationService } from './revocation-service.ts'
import type { Ground, Part } from './ground.ts'

/** Two previews at once; each may take as long as people wait for one. */
const PREVIEW_BOUNDS = { max: 2, statementTimeoutMs: 8_000 } as const

/** Answers requests: who asks, may they, the line, the answer. */
export const createApiRole = (ground: Ground, ready: () => Promise<Readiness>) => {
  const { config, telemetry, backend, producer, database, terminate, enforcement, router, announceRules, signer, secrets } = ground
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
    queueFrom: config.queue.queueFrom,
    commitWaitMs: config.queue.commitWaitMs,
    // A stop has given the requests their time before it comes to the line.
    stopWithinMs: 0,
    metrics,
    log,
  })
  const wakeReceivers = (ids: readonly string[]) => {
    for (const id of ids) producer.wake('deliver', id)
  }
  const revocations = createRevocationService({
    db: reads,
    previews: { instance: database('preview', PREVIEW_BOUNDS), organizations: database('org-preview', PREVIEW_BOUNDS) },
    secrets: config.queue,
    lifetimes: config.sessions,
    ...config.revocations,
    wakeBulk: (id) => producer.wake('bulk', id),
    wakeRoute: () => router.wake(),
    wakeReceiver: (id) => producer.wake('deliver', id),
    horizonSeconds: config.delivery.horizonSeconds,
    announceRules,
  })
  const rules = createRulesInForce({ read: (asked) => readRulesAfter(reads, asked), log })
  const deadUses = createDeadUseCounter({ record: (uses) => recordDeadUses(reads, { uses, issuers: null }), log })
  const { count } = deadUses
  const trust = createTrust({ issuers: config.issuers, log })
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
    sessionRoutes: { sessions: createSessionStore({ db: reads, ...config.sessions }), wakeReceivers, enforceLateSid: enforcement.enforceLateSid, cacheKeyPrefixes: config.cache.keyPrefixes },
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
    stream: {
      readHead: () => readHead(reads),
      givePositions: () => givePositions(reads),
      readEntries: (asked) => readEntries(reads, { ...asked, maxTokenLifetimeSeconds }),
      readTombstones: ({ before, sinceMsAgo }) =>
        readTombstones(reads, { before, sinceMs: Date.now() - Math.min(livesMs, sinceMsAgo ?? livesMs), maxTokenLifetimeSeconds }),
      readRetold: ({ sinceMsAgo, after }) => readRetold(reads, { sinceMs: Date.now() - sinceMsAgo, after, maxTokenLifetimeSeconds }),
      readRulesAfter: (asked) => readRulesAfter(reads, asked),
      log,
    },
    introspect: { judgeToken: createJudgeToken({ trust, read, count, log }) },
    revocations: revocations.routes,
    acceptLogOut: revocations.acceptLogOut,
    attempts: {
      recordDeadUses: (asked) => recordDeadUses(reads, asked),
      readDeadUses: (asked) => readDeadUses(reads, asked),
      readDeadUsesOfRevocation: (asked) => readDeadUsesOfRevocation(reads, asked),
    },
    report: { ...createReportReads({ db: reads, retentionSeconds: config.delivery.retentionSeconds }), signReport: createSignReport(signer), log },
    telemetry,
    http: config.http,
  })
  return { server, parts: [rules, deadUses, results, verification, line] satisfies Part[], queueAvailable: line.available }
}
