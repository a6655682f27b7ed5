/**
 * `/v1/attempts`: how often what is dead was still tried. Guards report in batches what they refused; introspection and
 * our own API count by themselves. Permission `session.read` for the instance.
 */
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { requireInstance } from '../../auth/caller.ts'
import { CurfewError } from '../../errors.ts'
import type { DeadTarget, DeadUse, DeadUseCount } from '../../store/dead-uses.ts'
import type {} from '../caller.ts'
import { errorAnswers } from '../documented-errors.ts'
import { isRevocationId } from '../revocation-viewer.ts'

export interface AttemptRoutesDeps {
  readonly recordDeadUses: (asked: { uses: readonly DeadUse[]; issuers: readonly string[] }) => Promise<void>
  readonly readDeadUses: (asked: DeadTarget & { issuers: readonly string[] }) => Promise<readonly DeadUseCount[]>
  readonly readDeadUsesOfRevocation: (asked: { revocationId: string; issuers: readonly string[] }) => Promise<readonly DeadUseCount[]>
}

/** What a guard holds between two reports, see `client/attempts.ts`. */
const MAX_REPORTED = 1_000
/** So many kinds with the longest names that there usually are: a report that is too long would be tried again for ever. */
const BODY_LIMIT_BYTES = 2_097_152
/** In one report of one kind; more is not believed, and a sum of them never leaves 64 bits. */
const MAX_COUNT = 1_000_000_000

/** Names of sessions and issuers: no control characters, because Postgres text holds no NUL. */
const id = z.string().max(512).regex(/^[^\p{Cc}\p{Cs}]+$/u, 'must be plain characters')
const ONE_RULE = 'must name one of sessionId and ruleId'
const target = { sessionId: id.optional().describe('A terminated session'), ruleId: id.optional().describe('A cutoff rule') }
const isOne = (named: { sessionId?: string | undefined; ruleId?: string | undefined }): boolean =>
  (named.sessionId === undefined) !== (named.ruleId === undefined)

const targetOf = ({ sessionId, ruleId }: { sessionId?: string | undefined; ruleId?: string | undefined }): DeadTarget =>
  ruleId === undefined ? { by: 'session', id: sessionId ?? '' } : { by: 'rule', id: ruleId }

const counted = z.object({
  issuer: z.string(),
  count: z.string().describe('A 64-bit number'),
  firstDate: z.string().describe('RFC 3339 UTC'),
  lastDate: z.string().describe('RFC 3339 UTC'),
})

/** Strict: a name that is misspelt is in no answer, and would seem to be tried no more. */
const readQuery = z.strictObject({
  ...target,
  revocationId: id.transform((text) => text.replace(/^revocations\//, '')).optional().describe('A revocation: its id, or its name `revocations/{id}`'),
})

const tags = ['checks']

export const attemptRoutes: FastifyPluginAsyncZod<AttemptRoutesDeps> = async (app, deps) => {
  app.addHook('onRequest', (request, _reply, done) => {
    requireInstance(request.caller, 'session.read')
    done()
  })

  app.post('/v1/attempts', {
    bodyLimit: BODY_LIMIT_BYTES,
    schema: {
      tags,
      summary: 'Report attempts to use what is dead',
      description:
        `Up to ${MAX_REPORTED} kinds at once. What names no terminated session and no rule of the caller’s issuers is ` +
        'passed over. A report that is repeated counts twice. Permission `session.read` for the instance.',
      body: z.object({
        attempts: z
          .array(z.object({ issuer: id, ...target, count: z.number().int().min(1).max(MAX_COUNT) }).refine(isOne, ONE_RULE))
          .max(MAX_REPORTED),
      }),
      response: { 204: z.void().meta({ description: 'Counted' }), ...errorAnswers('permission_denied', 'body_too_large') },
    },
    handler: async ({ caller, body }, reply) => {
      const uses = body.attempts.map((attempt) => ({ ...targetOf(attempt), issuer: attempt.issuer, count: attempt.count }))
      await deps.recordDeadUses({ uses, issuers: caller.sessionIssuers })
      return reply.status(204).send()
    },
  })

  app.get('/v1/attempts', {
    schema: {
      tags,
      summary: 'How often a dead session, what a rule killed, or what a revocation ended was still tried',
      description: 'Permission `session.read` for the instance. Of a revocation: the sum over the sessions that it ended and the rules that it set.',
      querystring: readQuery,
      response: {
        200: z.object({ attempts: z.array(counted).describe('One for each issuer; empty: none') }),
        ...errorAnswers('permission_denied', 'invalid_argument'),
      },
    },
    handler: async ({ caller, query: { revocationId, ...query } }) => {
      if (revocationId !== undefined && query.sessionId === undefined && query.ruleId === undefined) {
        if (!isRevocationId(revocationId)) return { attempts: [] }
        return { attempts: [...(await deps.readDeadUsesOfRevocation({ revocationId, issuers: caller.sessionIssuers }))] }
      }
      if (revocationId !== undefined || !isOne(query)) throw new CurfewError('invalid_argument', { says: 'Query must name one of sessionId, ruleId and revocationId' })
      return { attempts: [...(await deps.readDeadUses({ ...targetOf(query), issuers: caller.sessionIssuers }))] }
    },
  })
}
