/** A revocation as Curfew's API tells it, and as lines for people. */
import { z } from 'zod'
import { RemoteError } from './remote.ts'
import { shown } from './terminal.ts'

/** 64-bit numbers are strings on the wire. */
const count = z.string().regex(/^\d+$/).transform(Number)
const time = z.string().nullable()
const asked = z.record(z.string(), z.unknown()).optional()
const deliveries = z.object({ total: count, acknowledged: count, pending: count, failed: count, moot: count })

const operation = z.object({
  name: z.string().startsWith('revocations/'),
  done: z.boolean(),
  metadata: z.object({
    state: z.string(),
    notifications: z.string(),
    mode: z.string(),
    reason: z.string().nullable(),
    ticket: z.string().nullable(),
    /** Not in lists. */
    filter: asked,
    exclude: asked,
    actor: z.object({ issuer: z.string(), subject: z.string() }),
    containment: z.string(),
    createTime: z.string(),
    cutoffTime: z.string(),
    committedTime: time,
    enforcedTime: time,
    acknowledgedTime: time,
    sessions: z.object({ matched: count, terminated: count, expected: count, expectedExact: z.boolean() }),
    deliveries,
  }),
})

export type Operation = z.infer<typeof operation>

/** @throws RemoteError where this is no revocation. */
export const readOperation = (value: unknown): Operation => {
  const result = operation.safeParse(value)
  if (!result.success) throw new RemoteError('The answer is not a revocation; is CURFEW_URL right?', null, result.error)
  return result.data
}

export const idOf = ({ name }: Operation): string => name.slice('revocations/'.length)

/** More values are told by their number. */
const MOST_NAMED = 5

/** A number for people: 1,234,567. */
export const grouped = (number: number): string => number.toLocaleString('en-US')

/** How many it will end, as far as that is known: at least what it has met. */
export const expectedOf = ({ metadata: { sessions } }: Operation): { number: number; exact: boolean } => ({
  number: Math.max(sessions.expected, sessions.matched),
  exact: sessions.expectedExact,
})

/** What is done and what is left, in one line. */
export const standing = (revocation: Operation): string => {
  const { state, notifications, sessions, deliveries: told } = revocation.metadata
  const { number, exact } = expectedOf(revocation)
  const of = revocation.done || number === 0 ? '' : ` of ${exact ? '' : 'at least '}${grouped(number)}`
  return [
    `${state}${notifications === 'running' ? '' : ` (notifications ${notifications})`}`,
    `${grouped(sessions.terminated)}${of} sessions ended`,
    `${grouped(told.acknowledged)} of ${grouped(told.total)} receivers' messages acknowledged`,
    ...(told.failed === 0 ? [] : [`${grouped(told.failed)} failed`]),
    ...(told.moot === 0 ? [] : [`${grouped(told.moot)} moot`]),
  ].join(', ')
}

/** One line of a list. */
export const listed = (revocation: Operation): string => {
  const { createTime, mode, reason, ticket, actor } = revocation.metadata
  const by = `by=${shown(actor.subject)}`
  const why = reason === null ? [] : [`reason=${shown(reason)}`]
  return [createTime, idOf(revocation), mode, standing(revocation), by, ...(ticket === null ? [] : [`ticket=${shown(ticket)}`]), ...why].join('  ')
}

/** Everything, a line each. */
export const described = (revocation: Operation): string[] => {
  const { metadata } = revocation
  const rows: [string, string | null][] = [
    ['revocation', idOf(revocation)],
    ['state', metadata.notifications === 'running' ? metadata.state : `${metadata.state}, notifications ${metadata.notifications}`],
    ['mode', metadata.mode],
    ['reason', metadata.reason === null ? null : shown(metadata.reason)],
    ['ticket', metadata.ticket === null ? null : shown(metadata.ticket)],
    ['asked by', `${shown(metadata.actor.subject)} (${shown(metadata.actor.issuer)})`],
    ['filter', said(metadata.filter)],
    ['spares', said(metadata.exclude)],
    ['containment', metadata.containment === 'rules' ? 'rules: in force since it was accepted' : 'rows: each session dies as it is ended'],
    ['accepted', metadata.createTime],
    ['cutoff', metadata.cutoffTime],
    ['committed', metadata.committedTime],
    ['enforced', metadata.enforcedTime],
    ['acknowledged', metadata.acknowledgedTime],
    ['sessions', `${grouped(metadata.sessions.terminated)} ended, ${grouped(metadata.sessions.matched)} met`],
    ['receivers', `${grouped(metadata.deliveries.acknowledged)} of ${grouped(metadata.deliveries.total)} acknowledged, ${grouped(metadata.deliveries.pending)} pending, ${grouped(metadata.deliveries.failed)} failed, ${grouped(metadata.deliveries.moot)} moot`],
  ]
  return rows.flatMap(([name, text]) => (text === null ? [] : [`${name.padEnd(13)} ${text}`]))
}

/** What a filter names, without what it leaves open; null: nothing. A long list is told by its length. */
const said = (filter: Record<string, unknown> | undefined): string | null => {
  const parts = Object.entries(filter ?? {}).flatMap(([name, value]) => {
    if (Array.isArray(value)) return value.length === 0 ? [] : [`${name}=${value.length > MOST_NAMED ? `(${grouped(value.length)})` : value.join(',')}`]
    return value === null || value === false ? [] : [`${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`]
  })
  return parts.length === 0 ? null : shown(parts.join('  '))
}
