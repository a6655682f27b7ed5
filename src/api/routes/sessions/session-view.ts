/**
 * A session as ZITADEL's clients read it (zitadel-wire §3). As protojson does, what is empty is left out. The one
 * factor we know of is the user; how they proved who they are is the issuer's knowledge.
 */
import { z } from 'zod'
import type { SessionView } from '../../../store/session-read.ts'

const instant = z.string().describe('RFC 3339 UTC with three fractional digits')

export const sessionShape = z.object({
  id: z.string(),
  creationDate: instant,
  changeDate: instant,
  sequence: z.string().describe('Number of the session’s last event, a 64-bit number as a string'),
  factors: z.object({
    user: z.object({
      verifiedAt: instant.describe('When the user signed in'),
      id: z.string(),
      organizationId: z.string(),
    }),
  }),
  metadata: z.record(z.string(), z.string().describe('base64')).optional(),
  userAgent: z
    .object({ fingerprintId: z.string().optional(), ip: z.string().optional(), description: z.string().optional() })
    .optional(),
  expirationDate: instant,
})

/** The wire form of one session. */
export const renderSession = (session: SessionView): z.output<typeof sessionShape> => {
  const { id, creationDate, changeDate, sequence, userAgent, metadata, expirationDate } = session
  return {
    id,
    creationDate,
    changeDate,
    sequence,
    factors: { user: { verifiedAt: session.born, id: session.userId, organizationId: session.resourceOwner } },
    ...(Object.keys(metadata).length > 0 ? { metadata: { ...metadata } } : {}),
    ...(userAgent === null ? {} : { userAgent: present(userAgent) }),
    expirationDate,
  }
}

const present = ({ fingerprintId, ip, description }: NonNullable<SessionView['userAgent']>) => ({
  ...(fingerprintId === null ? {} : { fingerprintId }),
  ...(ip === null ? {} : { ip }),
  ...(description === null ? {} : { description }),
})
