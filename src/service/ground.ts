/**
 * What both roles are made from: opened once by `service.ts`, in the order in which a request meets it.
 */
import { createBackchannelLogout } from '../channels/backchannel-logout.ts'
import type { Signer } from '../channels/signing.ts'
import type { StreamChannel } from '../channels/stream.ts'
import { createWebhook } from '../channels/webhook.ts'
import type { WebhookSecrets } from '../channels/webhook-secret.ts'
import type { Config } from '../config.ts'
import type { createEnforcement } from '../outbox/enforce.ts'
import type { QueueBackend } from '../queue/backend.ts'
import type { Producer } from '../queue/enqueue.ts'
import type { Database, DatabaseOptions } from '../store/postgres.ts'
import type { Telemetry } from '../telemetry.ts'
import type { Terminate } from '../termination/terminate.ts'

export interface Part {
  start?(): Promise<void>
  stop(): Promise<void>
}

/** What both roles are made from. */
export interface Ground {
  readonly config: Config
  readonly telemetry: Telemetry
  readonly backend: QueueBackend
  readonly producer: Producer
  /** Opens a pool of its own, with other bounds where they are given. */
  readonly database: (name: string, bounds?: Pick<DatabaseOptions, 'statementTimeoutMs'> & { max?: number }) => Database
  /** Aborted when a stop begins: long work ends where it can be taken up again. */
  readonly stopping: AbortSignal
  /** Who is woken after a commit; a worker puts its own router here. */
  readonly router: { wake: () => void }
  readonly terminate: Terminate
  readonly enforcement: ReturnType<typeof createEnforcement>
  readonly stream: StreamChannel | null
  /** For whoever has just set cutoff rules: puts them on the stream at once. Never rejects. */
  readonly announceRules: () => Promise<void>
  readonly signer: Signer
  readonly secrets: WebhookSecrets
}

/** By receiver type. */
export const remoteChannels = ({ signer, secrets }: Pick<Ground, 'signer' | 'secrets'>) => ({
  backchannel_logout: createBackchannelLogout({ sign: signer.sign, now: Date.now }),
  webhook: createWebhook({ openSecret: secrets.open, now: Date.now }),
})
