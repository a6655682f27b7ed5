/** A preview on the wire: what a revocation would end, and whom that would concern. */
import { z } from 'zod'
import type { RevocationPreview } from '../termination/preview-revocation.ts'

const time = z.string().describe('RFC 3339 UTC')
const count = z.uint32().describe('Of the sessions looked at')

export const previewAnswer = z.object({
  sessions: z.object({ count: z.string().describe('A 64-bit number'), exact: z.boolean().describe('False: at least so many') }),
  expectedLogins: z.uint32().nullable().describe('Different users among the sessions looked at: so many will sign in again. Null: not known in time'),
  containment: z.enum(['rules', 'rows']).describe('`rules`: all of it would be in force at once; `rows`: a session dies when it is ended'),
  rules: z.uint32().describe('Cutoff rules that would be set'),
  includesCaller: z.boolean().describe('The caller’s own token would be refused from then on'),
  cutoffTime: time.describe('What is born later would live'),
  lookedAt: z.uint32().describe('Sessions that what follows was made from'),
  sample: z
    .array(z.object({ sessionId: z.string(), issuer: z.string(), userId: z.string(), resourceOwner: z.string(), born: time, expirationDate: time }))
    .describe('At most 100'),
  organizations: z.array(z.object({ resourceOwner: z.string(), count })).describe('At most 100, those with the most sessions first'),
  clients: z.array(z.object({ clientId: z.string(), count })).describe('Relying parties, at most 100'),
  receivers: z
    .array(
      z.object({
        id: z.string(),
        type: z.enum(['backchannel_logout', 'webhook']),
        clientId: z.string().nullable(),
        count: z.uint32().describe('Participations of sessions that it would be told of'),
        reachability: z.enum(['reachable', 'open', 'disabled']).describe('`open`: it has failed and is left alone for now; `disabled`: switched off'),
      }),
    )
    .describe('Within reach; at most 100, those that cannot be reached at present first'),
  previewToken: z.string().describe('Good for this body and this caller'),
  previewTokenExpireTime: time,
})

export const renderPreview = (preview: RevocationPreview): z.output<typeof previewAnswer> => {
  const { counted, impact, containment, rules, includesCaller, cutoff, token, tokenExpiresMs } = preview
  return {
    sessions: { count: String(counted.count), exact: counted.exact },
    expectedLogins: impact?.users ?? null,
    containment,
    rules,
    includesCaller,
    cutoffTime: cutoff,
    lookedAt: impact?.sessions ?? 0,
    sample: [...(impact?.sample ?? [])],
    organizations: [...(impact?.organizations ?? [])],
    clients: [...(impact?.clients ?? [])],
    receivers: [...(impact?.receivers ?? [])],
    previewToken: token,
    previewTokenExpireTime: new Date(tokenExpiresMs).toISOString(),
  }
}
