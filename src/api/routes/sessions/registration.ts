/**
 * What a registration is on the wire, and how it becomes one for the store: defaults filled in, the token made, and
 * a hash over the canonical form by which the identical registration is known again.
 */
import { createHash } from 'node:crypto'
import { z } from 'zod'
import type { Caller } from '../../../auth/caller.ts'
import { newSessionToken } from '../../../auth/session-token.ts'
import { CurfewError } from '../../../errors.ts'
import type { Participant } from '../../../model.ts'
import type { Registration } from '../../../store/session-add.ts'
import {
  ONE_EXPIRY_RULE,
  birthFields,
  cacheKeys,
  expiryFields,
  expiryOf,
  isOneExpiry,
  issuerUrl,
  metadata,
  organization,
  subject,
  userAgent,
} from './session-fields.ts'

/** A registration as the store takes it, and the token whose hash it carries. */
export interface TokenedRegistration {
  readonly registration: Registration
  readonly sessionToken: string
}

/** The participants that a registration may bring; more are added one by one, as clients join. */
const MAX_CLIENTS = 100

const participant = z.strictObject({ clientId: subject, sid: subject.optional(), sub: subject.optional() })

/** The fields of a registration but its id. Unknown fields are refused: a misspelt one would be a missing one. */
export const registrationFields = (cacheKeyPrefixes: readonly string[]) => ({
  userId: subject,
  resourceOwner: organization,
  issuer: issuerUrl.optional().describe('Defaults to the issuer of the caller'),
  clients: z.array(participant).max(MAX_CLIENTS).default([]),
  userAgent: userAgent.optional(),
  ...birthFields,
  ...expiryFields,
  metadata: metadata.default({}),
  cacheKeys: cacheKeys(cacheKeyPrefixes).default([]),
})

export const registrationBody = (cacheKeyPrefixes: readonly string[]) =>
  z.strictObject(registrationFields(cacheKeyPrefixes)).refine(isOneExpiry, ONE_EXPIRY_RULE)

export type RegistrationBody = z.output<ReturnType<typeof registrationBody>>

type Unhashed = Omit<Registration, 'hash' | 'tokenHash'>

/** One text for registrations that say the same: sets sorted, keys in one order. The id is the row's own key. */
const canonical = (registration: Unhashed): string => {
  const { issuer, userId, resourceOwner, userAgent: agent, creationDate, authTime, expiry } = registration
  const clients = registration.clients.map(({ clientId, sid, sub }) => JSON.stringify([clientId, sid, sub])).sort()
  const entries = Object.entries(registration.metadata).map((entry) => JSON.stringify(entry)).sort()
  const device = agent && [agent.fingerprintId, agent.ip, agent.description]
  const keys = [...registration.cacheKeys].sort()
  return JSON.stringify([issuer, userId, resourceOwner, clients, device, entries, keys, creationDate, authTime, expiry])
}

const participantsOf = (id: string, body: RegistrationBody): Participant[] => {
  const participants = body.clients.map(({ clientId, sid = id, sub = body.userId }) => ({ clientId, sid, sub }))
  const known = new Set(participants.map(({ clientId, sid }) => JSON.stringify([clientId, sid])))
  if (known.size < participants.length) throw new CurfewError('invalid_argument', { says: 'clients name a clientId and sid twice' })
  return participants
}

/**
 * Completes a registration and makes its session token.
 *
 * @throws CurfewError permission_denied for an issuer that the caller does not speak for; invalid_argument for a
 * participant that is named twice.
 */
export const toRegistration = (caller: Caller, id: string, body: RegistrationBody): TokenedRegistration => {
  const issuer = body.issuer ?? caller.actor.issuer
  if (!caller.sessionIssuers.includes(issuer)) throw new CurfewError('permission_denied')
  const { userId, resourceOwner, metadata: entries, cacheKeys: keys } = body
  const unhashed: Unhashed = {
    id,
    issuer,
    userId,
    resourceOwner,
    clients: participantsOf(id, body),
    userAgent: body.userAgent ?? null,
    metadata: Object.fromEntries(Object.entries(entries).filter(([, value]) => value !== '')),
    cacheKeys: keys,
    creationDate: body.creationDate ?? null,
    authTime: body.authTime ?? null,
    expiry: expiryOf(body),
  }
  const { token, hash: tokenHash } = newSessionToken()
  const hash = createHash('sha256').update(canonical(unhashed), 'utf8').digest()
  return { registration: { ...unhashed, hash, tokenHash }, sessionToken: token }
}
