/**
 * A revocation on the wire, in the shape of google.longrunning.Operation. 64-bit numbers are strings, times RFC 3339 UTC
 * with three fractional digits, and null is "not yet".
 */
import { z } from 'zod'
import type { ListedRevocation } from '../store/revocation-list.ts'
import type { Revocation } from '../store/revocations.ts'

const number = z.string().describe('A 64-bit number')
const time = z.string().describe('RFC 3339 UTC')

export const operationAnswer = z.object({
  name: z.string().describe('`revocations/{id}`'),
  done: z.boolean().describe('No session is ended by it any more: a pass has found none left, or it was cancelled'),
  metadata: z.object({
    state: z.enum(['running', 'paused', 'cancelled', 'done']).describe('Of its terminations'),
    notifications: z.enum(['running', 'paused', 'cancelled']),
    mode: z.enum(['logout', 'revoke']),
    reason: z.string().nullable(),
    ticket: z.string().nullable(),
    actor: z.object({ issuer: z.string(), subject: z.string() }),
    issuers: z.array(z.string()).describe('Whose sessions it reaches'),
    organizations: z.array(z.string()).nullable().describe('It reaches nothing beyond; null: the whole instance'),
    filter: z.looseObject({}).optional().describe('As it was asked for; not in lists'),
    exclude: z.looseObject({}).optional().describe('As it was asked for; not in lists'),
    pacing: z.object({ deliveriesPerSecond: z.uint32() }).nullable(),
    containment: z.enum(['rules', 'rows']).describe('`rules`: in force since it was accepted; `rows`: a session dies when it is ended'),
    createTime: time,
    updateTime: time.describe('When its state last changed'),
    cutoffTime: time.describe('What was born later lives'),
    committedTime: time.nullable().describe('When a pass had found none left'),
    enforcedTime: time.nullable().describe('When caches and the stream had all of it'),
    acknowledgedTime: time.nullable().describe('When the last receiver that answered had; null while one is still to be told'),
    sessions: z.object({
      expected: number.describe('How many matched when it was accepted'),
      expectedExact: z.boolean().describe('False: at least so many'),
      matched: number.describe('Met alive so far'),
      terminated: number.describe('Ended by it'),
    }),
    deliveries: z.object({ total: number, acknowledged: number, pending: number, failed: number, moot: number }),
  }),
  response: z.object({ remaining: z.literal('0') }).optional().describe('Once done: none is left'),
  error: z.object({ code: z.literal(1), message: z.string() }).optional().describe('Where its terminations were cancelled'),
})

export type OperationAnswer = z.output<typeof operationAnswer>

/** Its path, for `Location`. */
export const locationOf = (id: string): string => `/v1/revocations/${id}`

export const renderOperation = (revocation: ListedRevocation & Partial<Pick<Revocation, 'filter' | 'exclude'>>): OperationAnswer => {
  const { id, state, reach, deliveriesPerSecond, filter, exclude } = revocation
  return {
    name: `revocations/${id}`,
    done: state === 'done' || state === 'cancelled',
    metadata: {
      state,
      notifications: revocation.notifications,
      mode: revocation.mode,
      reason: revocation.reason,
      ticket: revocation.ticket,
      actor: { issuer: revocation.actor.issuer, subject: revocation.actor.subject },
      issuers: [...revocation.issuers],
      organizations: reach === 'instance' ? null : [...reach],
      ...(filter === undefined ? {} : { filter: { ...filter } }),
      ...(exclude === undefined ? {} : { exclude: { ...exclude } }),
      pacing: deliveriesPerSecond === null ? null : { deliveriesPerSecond },
      containment: revocation.containment,
      createTime: revocation.created,
      updateTime: revocation.changed,
      cutoffTime: revocation.cutoff,
      committedTime: revocation.committed,
      enforcedTime: revocation.enforced,
      acknowledgedTime: revocation.acknowledged,
      sessions: {
        expected: revocation.expected,
        expectedExact: revocation.expectedExact,
        matched: revocation.matched,
        terminated: revocation.terminated,
      },
      deliveries: revocation.deliveries,
    },
    ...(state === 'done' ? { response: { remaining: '0' as const } } : {}),
    ...(state === 'cancelled' ? { error: { code: 1 as const, message: 'Cancelled' } } : {}),
  }
}
