/**
 * `GET /v1/revocations/{id}/report`: what a revocation did, for whoever must show it later. Signed with a key that stands
 * in the JWKS of the revocation's issuer; written while it is read, so a long one holds a page in memory.
 */
import { randomUUID } from 'node:crypto'
import { Readable } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import { z } from 'zod'
import { reachOf } from '../../../auth/caller.ts'
import { REPORT_TYPE, reportFormats } from '../../../client/report.ts'
import type { ReportClaim, ReportFormat } from '../../../client/report.ts'
import { CurfewError } from '../../../errors.ts'
import type { Revocation, Viewer } from '../../../store/revocations.ts'
import type { Log } from '../../../telemetry.ts'
import { withoutHead } from '../../allowed-methods.ts'
import type {} from '../../caller.ts'
import { errorAnswers } from '../../documented-errors.ts'
import { factsOf, partsOf } from '../../report-parts.ts'
import type { ReportReads } from '../../report-parts.ts'
import { reportTexts } from '../../report-text.ts'
import type { Seal } from '../../report-text.ts'
import { readSeen } from './read-revocation.ts'

export interface ReportRouteDeps extends ReportReads {
  readonly readVisibleRevocation: (asked: { id: string; viewer: Viewer }) => Promise<Revocation | null>
  /** A compact JWS with a key that the issuer publishes. */
  readonly log: Pick<Log, 'error'>
  readonly signReport: (asked: { issuer: string; typ: string; claims: Readonly<Record<string, unknown>> }) => Promise<string>
}

/**
 * Each is a query after the other over all sessions of a revocation; more at once would only be slower. Whoever
 * reads slowly keeps a place: callers of organizations keep none from those of the instance.
 */
const REPORTS_AT_ONCE = { instance: 4, organizations: 2 } as const

const types: Readonly<Record<ReportFormat, string>> = {
  json: 'application/json; charset=utf-8',
  csv: 'text/csv; charset=utf-8; header=present',
  ndjson: 'application/x-ndjson',
}

/** The format that a query names, else that `Accept` names first of those that there are, else JSON. */
const formatOf = (asked: ReportFormat | undefined, accept: string | undefined): ReportFormat => {
  if (asked !== undefined) return asked
  const named = (accept ?? '').toLowerCase().split(',').map((range) => range.split(';', 1)[0]?.trim())
  const known: Readonly<Record<string, ReportFormat>> = { 'application/json': 'json', 'text/csv': 'csv', 'application/x-ndjson': 'ndjson', 'application/jsonl': 'ndjson' }
  for (const type of named) if (type !== undefined && type in known) return known[type] ?? 'json'
  return 'json'
}

export const reportRoute = async (app: FastifyInstance, deps: ReportRouteDeps): Promise<void> => {
  const underWay = { instance: 0, organizations: 0 }

  const sealFor = (revocation: Revocation): Seal => ({ format, sha256, facts }) => {
    // Whoever asked spoke for all of them; its own issuer is the one that knows it.
    const { issuers, actor } = revocation
    const issuer = issuers.includes(actor.issuer) ? actor.issuer : (issuers[0] ?? actor.issuer)
    const { state, final, sessions: { terminated, remaining, remainingExact } } = facts
    const report: ReportClaim = { format, sha256, state, final, terminated, remaining, remainingExact }
    const iat = Math.floor(Date.parse(facts.generatedTime) / 1_000)
    return deps.signReport({ issuer, typ: REPORT_TYPE, claims: { iss: issuer, sub: facts.name, iat, jti: randomUUID(), report } })
  }

  /** The reader learns of it by a report that lacks its signature. */
  async function* logged(text: AsyncGenerator<string>): AsyncGenerator<string> {
    try {
      yield* text
    } catch (error) {
      deps.log.error({ event: 'report.broke_off', err: error }, 'a report broke off')
      throw error
    }
  }

  app.get<{ Params: { id: string }; Querystring: { format?: ReportFormat } }>('/v1/revocations/:id/report', {
    ...withoutHead,
    schema: {
      tags: ['revocations'],
      summary: 'What a revocation did, signed',
      description:
        'Who may read the revocation. By `format`, else by `Accept`: `json` (facts, receivers, what could not be told), `csv` and `ndjson` ' +
        '(also each session with what became of telling it). The signature is a compact JWS of the type `' + REPORT_TYPE + '` over the hash of the ' +
        'rest, with a key of `GET /v1/issuers/{issuer}/jwks.json`; `curfew verify-report` checks it. A report that broke off carries none.',
      params: z.object({ id: z.string().max(200) }),
      querystring: z.object({ format: z.enum(reportFormats).optional() }),
      response: {
        200: z.object({ report: z.looseObject({}), signature: z.string() }).meta({ description: 'Also text/csv and application/x-ndjson' }),
        ...errorAnswers('permission_denied', 'revocation_not_found', 'overloaded'),
      },
    },
    handler: async (request, reply) => {
      const { caller, params, query } = request
      const revocation = await readSeen(deps.readVisibleRevocation, caller, params.id)
      const within = { reach: reachOf(caller, 'revocation.read') ?? new Set<string>(), issuers: caller.sessionIssuers }
      const kind = within.reach === 'instance' ? 'instance' : 'organizations'
      if (underWay[kind] >= REPORTS_AT_ONCE[kind] || reply.raw.closed) throw new CurfewError('overloaded')
      underWay[kind] += 1
      // Also where nobody reads a word of it any more.
      reply.raw.once('close', () => (underWay[kind] -= 1))
      const format = formatOf(query.format, request.headers.accept)
      const facts = await factsOf(deps, revocation)
      const text = reportTexts[format](partsOf(deps, { seen: revocation, facts, within }), sealFor(revocation))
      return reply
        .header('content-type', types[format])
        .header('content-disposition', `attachment; filename="revocation-${revocation.id}.${format}"`)
        .header('x-accel-buffering', 'no')
        .send(Readable.from(logged(text), { objectMode: false }))
    },
  })
}
