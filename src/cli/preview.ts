/** A preview as Curfew's API tells it, and what a responder should see of it before anything ends. */
import { z } from 'zod'
import { grouped } from './operation.ts'
import { RemoteError } from './remote.ts'
import { shown } from './terminal.ts'

const count = z.string().regex(/^\d+$/).transform(Number)
const part = z.number().int().nonnegative()

const preview = z.object({
  sessions: z.object({ count, exact: z.boolean() }),
  expectedLogins: z.number().nullable(),
  containment: z.enum(['rules', 'rows']),
  rules: z.number(),
  includesCaller: z.boolean(),
  /** What the lists below were made from. */
  lookedAt: z.number(),
  organizations: z.array(z.object({ resourceOwner: z.string(), count: part })),
  clients: z.array(z.object({ clientId: z.string(), count: part })),
  receivers: z.array(z.object({ id: z.string(), count: part, reachability: z.string() })),
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

/** How many will end, as a person says it. */
export const sizeOf = ({ sessions: { count: number, exact } }: Preview): string => `${exact ? '' : 'at least '}${grouped(number)}`

const table = (title: string, rows: readonly (readonly [name: string, number: number])[]): string[] =>
  rows.length === 0 ? [] : [
    title,
    ...rows.slice(0, MOST).map(([name, number]) => `  ${grouped(number).padStart(12)}  ${shown(name)}`),
    ...(rows.length > MOST ? [`  and ${rows.length - MOST} more`] : []),
  ]

/** To a reader who knows nothing of breakers, `open` would say the opposite. */
const awayBecause: Readonly<Record<string, string>> = { open: 'failing, left alone for now', disabled: 'switched off' }

/** What would happen, before it does. */
export const previewLines = (seen: Preview): string[] => {
  const { lookedAt, expectedLogins, containment, rules, organizations, clients, receivers } = seen
  const of = lookedAt < seen.sessions.count || !seen.sessions.exact ? `, of the first ${grouped(lookedAt)}` : ''
  const away = receivers.filter(({ reachability }) => reachability !== 'reachable')
  return [
    `${sizeOf(seen)} sessions match.${expectedLogins === null ? '' : ` ${grouped(expectedLogins)} users will have to sign in again${of}.`}`,
    containment === 'rules'
      ? `It is in force at once, by ${grouped(rules)} cutoff ${rules === 1 ? 'rule, which' : 'rules, which'} cannot be taken back.`
      : 'Each session dies as it is ended: this filter cannot be said in a cutoff rule.',
    ...(seen.includesCaller ? ['Your own token would be refused from then on: to see it through, exclude yourself (--exclude-user, --exclude-session).'] : []),
    ...table(`By organization${of}:`, organizations.map((one) => [one.resourceOwner, one.count])),
    ...table(`By client${of}:`, clients.map((one) => [one.clientId, one.count])),
    ...table(`Receivers to be told${of}:`, receivers.map((one) => [one.id, one.count])),
    ...(away.length === 0 ? [] : [`Cannot be told at present: ${away.map(({ id, reachability }) => `${shown(id)} (${awayBecause[reachability] ?? shown(reachability)})`).join(', ')}.`]),
  ]
}
