/**
 * `POST /v2/sessions/search` and `/v2beta/…`: the sessions that the caller may read and that match all queries
 * (DESIGN §6). `totalResult` counts those and no others, and pages are full, which ZITADEL's are not always.
 */
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { reachOf } from '../../../auth/caller.ts'
import type { SessionStore } from '../../../store/sessions.ts'
import type {} from '../../caller.ts'
import { errorAnswers } from '../../documented-errors.ts'
import { readBodyNames } from './protojson-names.ts'
import { MAX_QUERIES, filterOf, searchQuery } from './search-filter.ts'
import { renderSession, sessionShape } from './session-view.ts'

export interface SearchSessionsDeps {
  readonly sessions: Pick<SessionStore, 'search' | 'readFingerprint'>
}

/** The page that ZITADEL's documentation promises at most; above it upstream answers 400 too. */
const MAX_LIMIT = 1_000
const DEFAULT_LIMIT = 100

/** Skipping costs as much as reading. Who wants to go on from here asks by creation date. */
const MAX_OFFSET = 1_000_000

/** 1,000 ids of 200 characters, which may take three bytes each. */
const BODY_LIMIT_BYTES = 1_048_576

/** A whole number, also as a string (protojson). */
const count = (max: number) =>
  z
    .union([z.number(), z.string().regex(/^\d{1,15}$/).transform(Number)], 'must be a whole number')
    .pipe(z.number().int().min(0).max(max))
    .nullish()

const sortingColumns = ['SESSION_FIELD_NAME_UNSPECIFIED', 'SESSION_FIELD_NAME_CREATION_DATE'] as const

const searchBody = z.object({
  query: z
    .object({
      offset: count(MAX_OFFSET),
      limit: count(MAX_LIMIT).describe(`At most ${MAX_LIMIT}; 0 or absent: ${DEFAULT_LIMIT}`),
      asc: z.boolean().nullish().describe('Default is descending'),
    })
    .nullish(),
  queries: z.array(searchQuery).max(MAX_QUERIES).nullish(),
  sortingColumn: z
    .union([z.enum(sortingColumns), z.number().int().min(0).max(sortingColumns.length - 1)], `must be one of ${sortingColumns.join(', ')}`)
    .nullish()
    .describe('Sessions always come in order of creation'),
})

const found = z.object({
  details: z.object({
    totalResult: z.string().optional().describe('How many match that the caller may read; absent: none'),
    processedSequence: z.string().optional().describe('The highest sequence among them'),
    timestamp: z.string().describe('When this was read'),
  }),
  sessions: z.array(sessionShape).optional(),
})

export const searchSessionsRoute: FastifyPluginAsyncZod<SearchSessionsDeps> = async (app, { sessions }) => {
  for (const version of ['v2', 'v2beta']) {
    app.post(`/${version}/sessions/search`, {
      bodyLimit: BODY_LIMIT_BYTES,
      preValidation: readBodyNames,
      schema: {
        tags: ['sessions'],
        summary: 'Search sessions',
        description: 'Queries are ANDed. What is empty is left out of the answer, as protojson does.',
        deprecated: version === 'v2beta',
        body: searchBody,
        response: {
          200: found.describe('One page of the sessions that match'),
          ...errorAnswers('search_query_unknown', 'search_creator_missing', 'search_user_agent_missing', 'invalid_argument'),
        },
      },
      handler: async ({ caller, body }) => {
        const { actor, sid, sessionIssuers: issuers } = caller
        const filter = await filterOf(body.queries ?? [], {
          creator: actor.subject,
          readOwnFingerprint: async () => (sid === null ? null : sessions.readFingerprint(issuers, sid)),
        })
        const result = await sessions.search({ actor, issuers, reach: reachOf(caller, 'session.read') }, filter, {
          offset: body.query?.offset ?? 0,
          limit: body.query?.limit || DEFAULT_LIMIT,
          ascending: body.query?.asc ?? false,
        })
        const { totalResult, processedSequence, timestamp } = result
        return {
          details: { ...(totalResult === '0' ? {} : { totalResult, processedSequence }), timestamp },
          ...(result.sessions.length > 0 ? { sessions: result.sessions.map(renderSession) } : {}),
        }
      },
    })
  }
}
