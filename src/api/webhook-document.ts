/**
 * The `webhooks` of the OpenAPI document (OpenAPI 3.1): what receivers of type `webhook` are sent, by event. A test holds
 * the schema and what is really sent together.
 */
import { z } from 'zod'

const time = z.iso.datetime().describe('RFC 3339 UTC with three fractional digits')

export const sessionTerminatedEvent = z.strictObject({
  type: z.literal('session.terminated'),
  timestamp: time,
  data: z.strictObject({
    sessionId: z.string(),
    issuer: z.string().describe('Whose session it was, by its `iss` URL'),
    userId: z.string().describe('The issuer’s `sub`'),
    resourceOwner: z.string().describe('The organization'),
    mode: z.enum(['logout', 'revoke']).describe('An ordinary log-out, or a security revocation'),
    reason: z.string().optional(),
    sequence: z.string().regex(/^\d+$/).describe('Of the event in the session’s history, a 64-bit number'),
    terminatedAt: time,
  }),
})

const count = z.string().regex(/^\d+$/).describe('A 64-bit number')

export const revocationCompletedEvent = z.strictObject({
  type: z.literal('revocation.completed'),
  timestamp: time,
  data: z.strictObject({
    revocation: z.string().regex(/^revocations\//).describe('Its name, as the API has it'),
    mode: z.enum(['logout', 'revoke']),
    reason: z.string().optional(),
    ticket: z.string().optional(),
    createTime: time,
    cutoffTime: time.describe('What was born later lives'),
    committedTime: time.describe('When a pass had found none left'),
    enforcedTime: time.optional().describe('When caches and guards had been told; absent where that took more than a minute'),
    sessions: z
      .strictObject({ matched: count, terminated: count })
      .optional()
      .describe('How many were met, and ended by it; absent where it reached sessions of other issuers too'),
  }),
})

const terminatedExample = {
  type: 'session.terminated',
  timestamp: '2024-05-10T13:32:02.709Z',
  data: {
    sessionId: '218480890961985793',
    issuer: 'https://id.example.com',
    userId: '163840776835432705',
    resourceOwner: '69629023906488334',
    mode: 'revoke',
    reason: 'stolen laptop',
    sequence: '2',
    terminatedAt: '2024-05-10T13:32:02.709Z',
  },
}

const header = (name: string, description: string) => ({ name, in: 'header' as const, required: true, description, schema: { type: 'string' as const } })

const completedExample = {
  type: 'revocation.completed',
  timestamp: '2024-05-10T13:32:41.120Z',
  data: {
    revocation: 'revocations/018f62b9-90c1-7d3c-8d51-3f0f5a7f0f11',
    mode: 'revoke',
    reason: 'stolen laptops',
    ticket: 'INC-1',
    createTime: '2024-05-10T13:32:02.709Z',
    cutoffTime: '2024-05-10T13:32:03.000Z',
    committedTime: '2024-05-10T13:32:41.120Z',
    enforcedTime: '2024-05-10T13:32:41.133Z',
    sessions: { matched: '120413', terminated: '120413' },
  },
}

/** How an event is sent: the same for all of them. */
const webhook = ({ summary, description, event, example }: { summary: string; description: string; event: z.ZodType; example: object }) => ({
  post: {
    tags: ['receivers'],
    summary,
    description:
      `${description} Sent to receivers of type \`webhook\` as Standard Webhooks 1.0 has it. It may come more than once: \`webhook-id\` tells a ` +
      'repetition. Any 2xx acknowledges it; 410 switches the receiver off; a redirect is a failure; all else is tried again.',
    security: [],
    parameters: [
      header('webhook-id', 'The same for every attempt'),
      header('webhook-timestamp', 'Of the attempt, in Unix seconds'),
      header('webhook-signature', 'Space-delimited `v1,` signatures: HMAC-SHA256 over `{id}.{timestamp}.{body}`, in base64'),
    ],
    requestBody: { required: true, content: { 'application/json': { schema: z.toJSONSchema(event), example } } },
    responses: {
      '2XX': { description: 'Acknowledged' },
      410: { description: 'Gone for good: the receiver is switched off' },
      default: { description: 'Tried again; `Retry-After` is honoured within one hour' },
    },
  },
})

export const webhooksDocument = {
  'session.terminated': webhook({
    summary: 'A session has ended', description: 'Once for each session.', event: sessionTerminatedEvent, example: terminatedExample,
  }),
  'revocation.completed': webhook({
    summary: 'A revocation has ended all that it means',
    description: 'Once for each revocation, beside the sessions that it ended. A receiver of an organization is told of those that reach no other.',
    event: revocationCompletedEvent,
    example: completedExample,
  }),
}
