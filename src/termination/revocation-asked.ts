/**
 * What a caller asks of a revocation, and the texts by which two requests are known to ask the same.
 */
import { createHash } from 'node:crypto'
import type { Actor, RevocationExclusions, RevocationFilter, RevocationScope, TerminationMode } from '../model.ts'

/** The request, read and with its defaults filled in. */
export interface RevocationAsked {
  readonly filter: RevocationFilter
  readonly exclude: RevocationExclusions
  readonly mode: TerminationMode
  readonly reason: string
  readonly ticket: string | null
  readonly deliveriesPerSecond: number | null
}

/** Who asks, and what its permission reaches. */
export interface Asker {
  readonly actor: Actor
  /** The issuers that it speaks for. */
  readonly issuers: readonly string[]
  readonly reach: RevocationScope['reach']
}

const listed = (values: readonly string[]): string[] => [...values].sort()

/** The same for the same request, in whichever order it names its values. */
const requestHashOf = ({ filter, exclude, mode, reason, ticket, deliveriesPerSecond }: RevocationAsked): Buffer => {
  const { bornBefore, bornAfter, includeExpired, all } = filter
  const lists = [
    filter.resourceOwners, filter.userIds, filter.sessionIds, filter.clientIds, filter.fingerprintIds, filter.ips, exclude.userIds, exclude.sessionIds,
  ].map(listed)
  const text = JSON.stringify([lists, bornBefore, bornAfter, includeExpired, all, mode, reason, ticket, deliveriesPerSecond])
  return createHash('sha256').update(text).digest()
}

/** What a preview and an idempotency key are bound to: the caller, what it reaches, and the request. */
export const previewOf = ({ actor, issuers, reach }: Asker, asked: RevocationAsked): string =>
  JSON.stringify([actor.issuer, actor.subject, listed(issuers), reach === 'instance' ? null : listed([...reach]), requestHashOf(asked).toString('base64url')])
