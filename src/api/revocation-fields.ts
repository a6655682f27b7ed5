/**
 * The body of a revocation's request, each field with its bounds. Unknown names are refused at every level: a filter
 * that is misspelt must not end more than was meant.
 */
import { isIP } from 'node:net'
import { z } from 'zod'
import { MAX_EXCLUDED } from '../termination/cutoff-rules.ts'
import type { RevocationAsked } from '../termination/revocation-asked.ts'
import { instant } from './routes/sessions/session-fields.ts'

/** An evidence list of a day; 10,000 ids are looked up in some ten milliseconds. */
export const MAX_VALUES = 10_000
/** Every address of a session is compared with every one of these. */
const MAX_IPS = 1_000

/** All ids that fit into the lists, of the length that ids have. */
export const REVOCATION_BODY_BYTES = 1_048_576

const text = (max: number) =>
  z.string().regex(new RegExp(`^[^\\p{Cc}\\p{Cs}]{1,${max}}$`, 'u'), `must have 1 to ${max} characters and no control characters`)

const listOf = (value: z.ZodType<string>, max: number) =>
  z
    .array(value)
    .max(max)
    .nullish()
    .transform((values) => [...new Set(values ?? [])])

const isAddress = (asked: string): boolean => {
  const [address = '', prefix, ...more] = asked.split('/')
  const bits = { 0: -1, 4: 32, 6: 128 }[isIP(address)] ?? -1
  if (bits < 0 || more.length > 0 || address.includes('%')) return false
  return prefix === undefined || (/^(0|[1-9]\d{0,2})$/.test(prefix) && Number(prefix) <= bits)
}

const ids = listOf(text(512), MAX_VALUES)
const birth = instant.nullish().transform((sent) => sent ?? null)

const emptyFilter = { resourceOwners: [], userIds: [], sessionIds: [], clientIds: [], fingerprintIds: [], ips: [] }

const filter = z
  .strictObject({
    resourceOwners: ids.describe('Organizations'),
    userIds: ids.describe('The issuer’s `sub`s'),
    sessionIds: ids,
    clientIds: ids.describe('Sessions in which one of these relying parties took part'),
    fingerprintIds: ids,
    ips: listOf(z.string().refine(isAddress, 'must be an address or a CIDR'), MAX_IPS).describe('Addresses or CIDRs'),
    bornBefore: birth.describe('RFC 3339; born up to then'),
    bornAfter: birth.describe('RFC 3339; born after then'),
    includeExpired: z.boolean().default(false).describe('Also sessions that have expired and that nobody ended'),
    all: z.boolean().default(false).describe('Every session within reach; stands alone'),
  })
  .superRefine((asked, context) => {
    const { bornBefore, bornAfter, all } = asked
    const names = Object.keys(emptyFilter).some((kind) => asked[kind as keyof typeof emptyFilter].length > 0)
    const isFiltered = names || bornBefore !== null || bornAfter !== null
    const refuse = (message: string) => context.addIssue({ code: 'custom', message })
    if (all && isFiltered) refuse('all stands alone: leave out every other filter')
    if (!all && !isFiltered) refuse('must name something; every session within reach is {"all":true}')
    if (bornBefore !== null && bornAfter !== null && bornAfter >= bornBefore) refuse('bornAfter must be before bornBefore')
  })

const exclude = z.strictObject({ userIds: ids, sessionIds: ids })

export const revocationBody = z
  .strictObject({
    filter: filter.describe('Kinds are ANDed, values of one kind ORed'),
    exclude: exclude.nullish().describe(`Always win. More than ${MAX_EXCLUDED} of a kind cannot be said in cutoff rules`),
    mode: z.enum(['logout', 'revoke']).default('revoke').describe('Why: an ordinary log-out, or security'),
    reason: text(512).describe('For those who ask later'),
    ticket: text(200).nullish(),
    pacing: z
      .strictObject({ deliveriesPerSecond: z.number().int().min(1).max(100_000) })
      .nullish()
      .describe('Bounds the telling of receivers; sessions end as fast as they can'),
    validateOnly: z.boolean().default(false).describe('A preview: nothing is accepted'),
    previewToken: text(500).nullish().describe('From a preview of the same body'),
  })
  .meta({
    examples: [
      { filter: { resourceOwners: ['69629023906488334'] }, exclude: { userIds: ['break-glass'] }, reason: 'stolen laptop', ticket: 'INC-1' },
    ],
  })

/** The request, without what only says how to handle it. */
export const askedOf = (body: z.output<typeof revocationBody>): RevocationAsked => ({
  filter: body.filter,
  exclude: body.exclude ?? { userIds: [], sessionIds: [] },
  mode: body.mode,
  reason: body.reason,
  ticket: body.ticket ?? null,
  deliveriesPerSecond: body.pacing?.deliveriesPerSecond ?? null,
})
