/** Verifying as the API offers it: a receiver within the caller's reach, through doors of its own. */
import type { JWK } from 'jose'
import type { RemoteChannel } from '../channels/channel.ts'
import type { Database } from '../store/postgres.ts'
import { getReceiver } from '../store/receivers.ts'
import type { Within } from '../store/receivers.ts'
import { readLiveSecrets } from '../store/webhook-secrets.ts'
import type { Log } from '../telemetry.ts'
import { createAddressPolicy } from './address.ts'
import { createMakeAttempt } from './attempt.ts'
import { createConnect } from './door.ts'
import { createDoor } from './http.ts'
import { createReadPublishedKeys } from './published-keys.ts'
import { createResolve } from './resolve.ts'
import { createVerify } from './verify.ts'
import type { Verification } from './verify.ts'

/** A JWK Set of 20 keys with certificate chains stays below this. */
const MAX_JWKS_BYTES = 262_144

export const createVerification = (deps: {
  db: Database
  /** By receiver type. */
  channels: Readonly<Record<string, RemoteChannel>>
  /** The key that signs now in an issuer's name. */
  currentKey: (issuer: string, alg: string) => Promise<{ kid: string; publicJwk: JWK }>
  /** Where issuers publish their keys, as far as the operator says so. */
  jwksUris: ReadonlyMap<string, string>
  /** Reads a configured URI, whatever its address. */
  fetchJson: (uri: string) => Promise<unknown>
  allowPrivateReceivers: readonly string[]
  /** Milliseconds for one attempt in all. */
  timeoutMs: number
  log: Log
}) => {
  const { db, channels, currentKey, jwksUris, fetchJson, timeoutMs, log } = deps
  const connect = createConnect({ policy: createAddressPolicy(deps.allowPrivateReceivers), resolve: createResolve() })
  const door = createDoor({ connect, timeoutMs, now: Date.now })
  const keysDoor = createDoor({ connect, timeoutMs, now: Date.now, maxBodyBytes: MAX_JWKS_BYTES })
  const verify = createVerify({
    makeAttempt: createMakeAttempt({ channels, door, log }),
    currentKey,
    readPublishedKeys: createReadPublishedKeys({ configured: jwksUris, fetchJson, door: keysDoor }),
    now: Date.now,
  })
  return {
    /** @throws CurfewError receiver_not_found, also beyond the caller's reach, and too_many_requests. */
    verify: async (asked: Within & { id: string }): Promise<Verification> => {
      const receiver = await getReceiver(db, asked)
      return verify({ ...receiver, secrets: await readLiveSecrets(db, receiver.id) })
    },
    /** Cuts what is under way. May be repeated. */
    stop: async (): Promise<void> => {
      await Promise.all([door.close(), keysDoor.close()])
    },
  }
}
