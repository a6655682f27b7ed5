/** How the OpenAPI document describes the DELETE, whose route itself has no schema: nothing validates on the hot path. */
import type { FastifySchema } from 'fastify'
import { z } from 'zod'
import { errorAnswers } from './documented-errors.ts'
import { operationAnswer } from './revocation-view.ts'

const details = z
  .object({
    sequence: z.string().describe('Number of the event that ended it, a 64-bit number as a string'),
    changeDate: z.string().describe('When it was committed, by the database’s clock: RFC 3339 UTC, three fractional digits'),
    resourceOwner: z.string().describe('The organization of the session'),
  })
  .describe('The committed event; asking again gives the same')

const answer = z
  .object({
    details,
    deliveries: z
      .object({
        total: z.uint32(),
        acknowledged: z.uint32(),
        pending: z.uint32(),
        failed: z.uint32(),
        moot: z.uint32(),
      })
      .optional()
      .describe('With `Prefer: wait=N`, where the commit is routed by then; else absent'),
  })
  .meta({
    description: 'The termination is committed',
    examples: [{ details: { sequence: '2', changeDate: '2024-05-10T13:32:02.709Z', resourceOwner: '69629023906488334' } }],
  })

/** The entry of one of the two paths. */
export const endSessionDocument = (url: string): FastifySchema => ({
  tags: ['sessions'],
  summary: 'End one session',
  description:
    'Answers only after the termination is committed. Repeat-safe: asking again gives the details of the first '
    + 'termination. A session token decides alone; else the caller must be the user of the session or hold '
    + '`session.delete` for its organization.',
  operationId: url.startsWith('/v2beta') ? 'deleteSessionBeta' : 'deleteSession',
  ...(url.startsWith('/v2beta') ? { deprecated: true } : {}),
  params: z.object({ sessionId: z.string().min(1).max(200) }),
  headers: z.object({
    prefer: z
      .string()
      .optional()
      .describe(
        '`wait=N`: hold the answer for up to N seconds (30 at most) until the receivers have answered, and add '
        + '`deliveries` where the commit is routed by then. `respond-async`: 202 with a '
        + 'revocation that can be watched, at once',
      ),
  }),
  body: z
    .object({ sessionToken: z.string().nullable().optional() })
    .optional()
    .meta({ description: 'Optional; with any content type or none', examples: [{ sessionToken: '…' }] }),
  response: {
    200: answer,
    202: operationAnswer.meta({ description: 'With `Prefer: respond-async`: accepted. A session that has ended already is answered 200' }),
    ...errorAnswers('session_token_invalid', 'permission_denied', 'session_not_found'),
    ...errorAnswers('body_too_large', 'not_committed_in_time'),
  },
})
