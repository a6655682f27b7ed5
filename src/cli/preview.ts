/** A preview as Curfew's API tells it, and what a responder should see of it before anything ends. */
import { z } from 'zod'
import { grouped } from './operation.ts'
import { RemoteError } from './remote.ts'
import { shown } from './terminal.ts'

const count = z.union([z.string().regex(/^\d+$/), z.number().int().nonnegative()]).transform(Number)
const counted = z.looseObject({ count })

const preview = z.looseObject({
  sessions: z.object({ count, exact: z.boolean() }),
  containment: z.string().optional(),
  organizations: z.array(counted.extend({ resourceOwner: z.string() })).default([]),
  clients: z.array(counted.extend({ clientId: z.string() })).default([]),
  receivers: z.array(counted.extend({ id: z.string().nullish() })).default([]),
  unreachable: z.array(z.looseObject({ id: z.string().nullish() })).default([]),
  previewToken: z.string(),
})

export type Preview = z.infer<typeof preview>

/** @throws RemoteError where this is no preview. */
export const readPreview = (value: unknown): Preview => {
  const result = preview.safeParse(value)
  if (!result.success) throw new RemoteError('The answer is not a preview; is CURFEW_URL right?', null, result.error)
  return result.data
}

/** Rows of one kind; more are told by their number. */
const MOST = 10

/** The number to be typed, and the words around it. */
export const sizeOf = ({ sessions }: Preview): string => `${sessions.exact ? '' : 'at least '}${grouped(sessions.count)}`

const row = (name: string, number: number): string => `  ${grouped(number).padStart(12)}  ${shown(name)}`

const table = (title: string, rows: readonly (readonly [string, number])[]): string[] =>
  rows.length === 0 ? [] : [title, ...rows.slice(0, MOST).map(([name, number]) => row(name, number)), ...(rows.length > MOST ? [`  and ${rows.length - MOST} more`] : [])]

export const previewLines = (seen: Preview): string[] => [
  `${sizeOf(seen)} sessions match.`,
  ...table('By organization:', seen.organizations.map(({ resourceOwner, count: number }) => [resourceOwner, number])),
  ...table('By client:', seen.clients.map(({ clientId, count: number }) => [clientId, number])),
  ...table('By receiver:', seen.receivers.map(({ id, count: number }) => [id ?? '(not yours to see)', number])),
]
