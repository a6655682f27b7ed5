/**
 * The real server over a database and an issuer of its own: real authentication and authorization, real stores, the
 * real termination. Only the queue is left out: `ask` is the commit itself.
 */
import { randomBytes } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import type { FastifyInstance, InjectOptions, LightMyRequestResponse, onRouteHookHandler } from 'fastify'
import { createAuthenticate } from '../../src/auth/authenticate.ts'
import { createAuthorizeEnd } from '../../src/auth/authorize-end.ts'
import { createFetchJson } from '../../src/auth/fetch-json.ts'
import { createJudgeToken } from '../../src/auth/judge-token.ts'
import { createLimits } from '../../src/auth/limits.ts'
import { createRefuseDeadToken } from '../../src/auth/own-session.ts'
import { createRulesInForce } from '../../src/auth/rules-in-force.ts'
import { createTrust } from '../../src/auth/trust.ts'
import { buildServer } from '../../src/api/server.ts'
import type { ApiDeps } from '../../src/api/server.ts'
import { createBackchannelLogout } from '../../src/channels/backchannel-logout.ts'
import { createSignReport } from '../../src/channels/report-signing.ts'
import { createSigner } from '../../src/channels/signing.ts'
import { createWebhook } from '../../src/channels/webhook.ts'
import { createWebhookSecrets } from '../../src/channels/webhook-secret.ts'
import { checkReceiverUrl } from '../../src/delivery/address.ts'
import { createVerification } from '../../src/delivery/verification.ts'
import { createKeyring } from '../../src/keys.ts'
import type { TerminateAnswer, TerminateCommand } from '../../src/model.ts'
import { createAuthorizationReader } from '../../src/store/authorization.ts'
import type { Death } from '../../src/store/authorization.ts'
import { readRulesAfter } from '../../src/store/cutoff-rules.ts'
import { readDeadUses, readDeadUsesOfRevocation, recordDeadUses } from '../../src/store/dead-uses.ts'
import { listDeliveries, readSettled } from '../../src/store/deliveries.ts'
import { openDatabase } from '../../src/store/postgres.ts'
import type { Database } from '../../src/store/postgres.ts'
import { deleteReceiver, getReceiver, listReceivers, putReceiver } from '../../src/store/receivers.ts'
import { redeliverAll, redeliverOne } from '../../src/store/redelivery.ts'
import { createReportReads } from '../../src/store/revocation-report.ts'
import { createSessionStore } from '../../src/store/sessions.ts'
import { rotateSecret } from '../../src/store/webhook-secrets.ts'
import { givePositions, readEntries, readHead, readRetold, readTombstones } from '../../src/store/stream.ts'
import { createRevocationService } from '../../src/service/revocation-service.ts'
import { createTelemetry } from '../../src/telemetry.ts'
import { createTerminate } from '../../src/termination/terminate.ts'
import { startIssuer } from '../harness/issuer.ts'
import type { TestIssuer } from '../harness/issuer.ts'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'

export interface TestApi {
  readonly app: FastifyInstance
  readonly database: TestDatabase
  readonly db: Database
  /** Whom the server believes; its tokens hold for the instance, or with the claim `org` for organizations. */
  readonly issuer: TestIssuer
  /** A second one, for the same server, that speaks for its own sessions alone. */
  readonly stranger: TestIssuer
  /** Every line that was logged. */
  readonly logged: string[]
  /** The receivers that were woken. */
  readonly woken: string[]
  /** The revocations of which the engine was told. */
  readonly bulkWoken: string[]
  metrics(): Promise<string>
  /** An `Authorization` header of the first issuer's. */
  bearer(claims?: Record<string, unknown>): Promise<string>
  delete(sessionId: string, options?: { as?: string | undefined; payload?: InjectOptions['payload']; headers?: Record<string, string> }): Promise<LightMyRequestResponse>
  /** Listens, and returns the port. */
  listen(): Promise<number>
  close(): Promise<void>
}

/** Starts everything that a test of the API needs. `change` replaces single parts, to make them fail or wait. */
export const startApi = async (
  options: {
    change?: Partial<ApiDeps>
    ask?: (terminate: ApiDeps['ask'], command: TerminateCommand) => Promise<TerminateAnswer>
    callerPerSecond?: number
    refusedPerMinute?: number
    trustProxy?: string[]
    previewThreshold?: number
    /** Networks in which receivers may be told; none by default. */
    allowPrivateReceivers?: readonly string[]
    onRoute?: onRouteHookHandler
  } = {},
): Promise<TestApi> => {
  const [database, issuer, stranger] = await Promise.all([createDatabase(), startIssuer(), startIssuer()])
  const db = openDatabase({ url: database.url, name: 'test', max: 6 })
  const logged: string[] = []
  const woken: string[] = []
  const bulkWoken: string[] = []
  const telemetry = createTelemetry({ level: 'info', write: (line) => logged.push(line) })
  const { log } = telemetry
  const read = createAuthorizationReader(db)
  const terminate = createTerminate({ db, enforce: async () => {}, wakeRoute: () => {}, log })
  const keyring = createKeyring({ encryptionKey: randomBytes(32), encryptionKeyPrevious: null })
  const signer = createSigner({ db, keyring })
  const entries = [issuer, stranger].map((one) => one.entry({ organizationClaim: 'org' }))
  const ask: ApiDeps['ask'] = async (command) => {
    for (;;) {
      const [answer] = await terminate([command])
      if (answer !== undefined && answer.outcome !== 'busy') return answer
    }
  }
  const secrets = createWebhookSecrets(keyring)
  const allowPrivateReceivers = options.allowPrivateReceivers ?? []
  const verification = createVerification({
    db,
    channels: {
      backchannel_logout: createBackchannelLogout({ sign: signer.sign, now: Date.now }),
      webhook: createWebhook({ openSecret: secrets.open, now: Date.now }),
    },
    currentKey: signer.currentKey,
    // The first issuer's keys are configured; the second's are discovered.
    jwksUris: new Map([[issuer.url, issuer.jwksUri]]),
    fetchJson: createFetchJson(fetch),
    allowPrivateReceivers,
    timeoutMs: 1_000,
    log,
  })
  const revocations = createRevocationService({
    db,
    previews: { instance: db, organizations: db },
    secrets: { secret: randomBytes(32), secretPrevious: null },
    lifetimes: { maxLifetimeSeconds: 3_600, maxTokenLifetimeSeconds: 3_600 },
    previewThreshold: options.previewThreshold ?? 1_000,
    wakeBulk: (id) => void bulkWoken.push(id),
    wakeRoute: () => {},
    wakeReceiver: (id) => void woken.push(id),
    horizonSeconds: 86_400,
    announceRules: async () => {},
  })
  const trust = createTrust({ issuers: entries, log })
  const rules = createRulesInForce({ read: (asked) => readRulesAfter(db, asked), log })
  await rules.start()
  const count = ({ by, id, issuer: of }: Death) => void recordDeadUses(db, { uses: [{ by, id, issuer: of, count: 1 }], issuers: null })
  const app = buildServer({
    authenticate: createAuthenticate({ trust, log }),
    refuseDeadToken: createRefuseDeadToken({ read, rules, count }),
    limits: createLimits({ callerPerSecond: options.callerPerSecond ?? 10_000, refusedPerMinute: options.refusedPerMinute ?? 10_000 }),
    authorizeEnd: createAuthorizeEnd({ read }),
    ask: options.ask === undefined ? ask : (command) => options.ask?.(ask, command) ?? ask(command),
    readSettled: (ids) => readSettled(db, ids),
    ready: async () => ({ postgres: 'ok', queue: 'ok', draining: false }),
    issuers: new Set(entries.map((entry) => entry.issuer)),
    publicJwks: signer.publicJwks,
    receivers: {
      putReceiver: (asked) => putReceiver(db, asked),
      getReceiver: (asked) => getReceiver(db, asked),
      listReceivers: (asked) => listReceivers(db, asked),
      deleteReceiver: (asked) => deleteReceiver(db, asked),
      listDeliveries: (asked) => listDeliveries(db, asked),
      checkReceiverUrl: (url) => checkReceiverUrl(url, allowPrivateReceivers),
      ensureKey: signer.ensureKey,
      makeSecret: secrets.make,
      rotateSecret: (asked) => rotateSecret(db, asked),
      verify: verification.verify,
      redeliverAll: (asked) => redeliverAll(db, { ...asked, horizonSeconds: 3_600 }),
      redeliverOne: (asked) => redeliverOne(db, { ...asked, horizonSeconds: 3_600 }),
      wakeReceiver: (id) => void woken.push(id),
    },
    sessionRoutes: {
      sessions: createSessionStore({ db, maxLifetimeSeconds: 3_600, maxTokenLifetimeSeconds: 3_600 }),
      wakeReceivers: () => {},
      enforceLateSid: async () => {},
      cacheKeyPrefixes: [],
    },
    introspect: { judgeToken: createJudgeToken({ trust, read, count, log }) },
    revocations: revocations.routes,
    acceptLogOut: revocations.acceptLogOut,
    attempts: { recordDeadUses: (asked) => recordDeadUses(db, asked), readDeadUses: (asked) => readDeadUses(db, asked), readDeadUsesOfRevocation: (asked) => readDeadUsesOfRevocation(db, asked) },
    stream: {
      readHead: () => readHead(db),
      givePositions: () => givePositions(db),
      readEntries: (asked) => readEntries(db, { ...asked, maxTokenLifetimeSeconds: 3_600 }),
      readTombstones: ({ before, sinceMsAgo }) => readTombstones(db, { before, sinceMs: sinceMsAgo === null ? 0 : Date.now() - sinceMsAgo, maxTokenLifetimeSeconds: 3_600 }),
      readRetold: ({ sinceMsAgo, after }) => readRetold(db, { sinceMs: Date.now() - sinceMsAgo, after, maxTokenLifetimeSeconds: 3_600 }),
      readRulesAfter: (asked) => readRulesAfter(db, asked),
      log,
    },
    report: { ...createReportReads({ db, retentionSeconds: 3_600 }), signReport: createSignReport(signer), log },
    telemetry,
    http: { publicUrl: null, trustProxy: options.trustProxy ?? [] },
    ...options.change,
  })
  if (options.onRoute !== undefined) app.addHook('onRoute', options.onRoute)
  await app.ready()

  const bearer: TestApi['bearer'] = async (claims = {}) => `Bearer ${await issuer.token(claims)}`
  return {
    app,
    database,
    db,
    issuer,
    stranger,
    logged,
    woken,
    bulkWoken,
    metrics: () => telemetry.registry.metrics(),
    bearer,
    delete: (sessionId, { as, payload, headers = {} } = {}) =>
      app.inject({
        method: 'DELETE',
        url: `/v2/sessions/${encodeURIComponent(sessionId)}`,
        headers: { ...(as === undefined ? {} : { authorization: as }), ...headers },
        ...(payload === undefined ? {} : { payload }),
      }),
    listen: async () => {
      await app.listen({ port: 0, host: '127.0.0.1' })
      return (app.server.address() as AddressInfo).port
    },
    close: async () => {
      await app.close()
      await verification.stop()
      await rules.stop()
      await db.$disconnect()
      await Promise.all([issuer.close(), stranger.close(), database.drop()])
    },
  }
}
