/** What the delivery suites share: a database with receivers and ended sessions, and a deliver lane over it. */
import { randomBytes } from 'node:crypto'
import { createBackchannelLogout } from '../../src/channels/backchannel-logout.ts'
import type { RemoteChannel } from '../../src/channels/channel.ts'
import { createSigner } from '../../src/channels/signing.ts'
import { createWebhook } from '../../src/channels/webhook.ts'
import { createWebhookSecrets } from '../../src/channels/webhook-secret.ts'
import { createDeliver } from '../../src/delivery/deliver.ts'
import type { Deliver } from '../../src/delivery/deliver.ts'
import { createKeyring } from '../../src/keys.ts'
import { createRoute } from '../../src/outbox/route.ts'
import { openDatabase } from '../../src/store/postgres.ts'
import { putReceiver } from '../../src/store/receivers.ts'
import type { ReceiverSettings } from '../../src/store/receivers.ts'
import { terminateSessions } from '../../src/store/terminations.ts'
import { createTelemetry } from '../../src/telemetry.ts'
import { createDatabase } from '../harness/postgres.ts'
import { ISSUER, command, seedSessions } from '../harness/seed.ts'

export const MAX_TOKEN_LIFETIME_SECONDS = 86_400
export const HORIZON_SECONDS = 86_400
/** Where the test receivers live. */
export const LOOPBACK = ['127.0.0.0/8']

export interface DeliveryState {
  id: string
  session_id: string
  state: string
  attempts: number
  last_outcome: string | null
  last_status: number | null
  last_answer: string | null
  due_in: number
}

/** Opens a fresh database with everything that delivery needs above it. */
export const openGround = async () => {
  const database = await createDatabase()
  const db = openDatabase({ url: database.url, name: 'test', max: 5 })
  const telemetry = createTelemetry({ level: 'silent' })
  const keyring = createKeyring({ encryptionKey: randomBytes(32), encryptionKeyPrevious: null })
  const signer = createSigner({ db, keyring })
  const backchannel = createBackchannelLogout({ sign: signer.sign, now: Date.now })
  const secrets = createWebhookSecrets(keyring)
  const webhook = createWebhook({ openSecret: secrets.open, now: Date.now })
  const made: Deliver[] = []
  const route = createRoute({ db, wakeReceiver: () => {}, maxTokenLifetimeSeconds: MAX_TOKEN_LIFETIME_SECONDS })

  const put = (id: string, settings: Partial<ReceiverSettings> & { url: string }) =>
    putReceiver(db, {
      id, reach: 'instance', issuers: [ISSUER], secret: null,
      settings: {
        type: 'backchannel_logout', issuer: ISSUER, clientId: 'app', resourceOwner: null, subject: 'sid', alg: 'ES256',
        events: [], maxConcurrency: 8, ratePerSecond: null, enabled: true, ...settings,
      },
    })

  return {
    database,
    sql: database.sql,
    db,
    signer,
    keyring,
    telemetry,
    route,
    put,
    /** Registers a webhook, and returns its secret as its receiver knows it. */
    putWebhook: async (id: string, settings: Partial<ReceiverSettings> & { url: string }): Promise<string> => {
      const { shown, sealed } = secrets.make(id)
      await putReceiver(db, {
        id, reach: 'instance', issuers: [ISSUER], secret: sealed,
        settings: {
          type: 'webhook', issuer: ISSUER, clientId: null, resourceOwner: null, subject: 'sid', alg: 'RS256',
          events: ['session.terminated'], maxConcurrency: 8, ratePerSecond: null, enabled: true, ...settings,
        },
      })
      return shown
    },
    secrets,
    backchannel,
    webhook,
    /** Ends `count` sessions in which `clientId` takes part, and plans the deliveries. */
    endSessions: async (prefix: string, count: number, clientId = 'app') => {
      const ids = Array.from({ length: count }, (_, at) => `${prefix}-${at}`)
      await seedSessions(database.sql, ids.map((id) => ({ id, clients: [{ clientId }] })))
      await terminateSessions(db, ids.map((id) => command(id)))
      await route()
      return ids
    },
    /** A deliver lane with test-sized times; stopped with the ground. */
    deliverLane: (options: Partial<Parameters<typeof createDeliver>[0]> & { channel?: RemoteChannel } = {}) => {
      const { channel = backchannel, ...changed } = options
      const lane = createDeliver({
        db, channels: { backchannel_logout: channel, webhook }, allowPrivateReceivers: LOOPBACK, timeoutMs: 2_000, metrics: telemetry.metrics,
        log: telemetry.log, concurrency: 64, horizonSeconds: HORIZON_SECONDS, ...changed,
      })
      made.push(lane)
      return lane
    },
    deliveries: async (receiverId: string): Promise<DeliveryState[]> => {
      const { rows } = await database.sql.query<DeliveryState>(
        `SELECT id::text, session_id, state::text, attempts, last_outcome, last_status, last_answer,
           extract(epoch FROM due_at - now())::float8 AS due_in FROM deliveries WHERE receiver_id = $1 ORDER BY id`, [receiverId])
      return rows
    },
    /** How many deliveries are in each state. */
    states: async (receiverId: string): Promise<Record<string, number>> => {
      const { rows } = await database.sql.query<{ state: string; n: number }>(
        'SELECT state::text, count(*)::int AS n FROM deliveries WHERE receiver_id = $1 GROUP BY 1', [receiverId])
      return Object.fromEntries(rows.map(({ state, n }) => [state, n]))
    },
    close: async () => {
      await Promise.all(made.map((lane) => lane.stop()))
      await db.$disconnect()
      await database.drop()
    },
  }
}

export type Ground = Awaited<ReturnType<typeof openGround>>
