/** `POST /v2/sessions/search` (DESIGN §6, zitadel-wire §3): against a plain oracle in memory, and by example. */
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { errorKinds } from '../../src/errors.ts'
import { startSessionApi } from './session-api.ts'
import type { SessionApi } from './session-api.ts'

interface Known {
  readonly id: string
  readonly issuer: string
  readonly userId: string
  readonly resourceOwner: string
  readonly creator: string
  readonly fingerprintId: string | undefined
  readonly created: number
  readonly expires: number
}

const methods = ['EQUALS', 'GREATER', 'GREATER_OR_EQUALS', 'LESS', 'LESS_OR_EQUALS'] as const
const compare: Record<(typeof methods)[number], (one: number, other: number) => boolean> = {
  EQUALS: (one, other) => one === other,
  GREATER: (one, other) => one > other,
  GREATER_OR_EQUALS: (one, other) => one >= other,
  LESS: (one, other) => one < other,
  LESS_OR_EQUALS: (one, other) => one <= other,
}

const BIRTH = Date.UTC(2026, 0, 1)
const END = Date.now() - (Date.now() % 1_000) + 7_200_000
const moments = [-1, 0, 1, 2, 1_000, 60_000]

let api: SessionApi
let known: Known[]
let readers: { bearer: string; may: (session: Known) => boolean; creator: string; fingerprintId: string | null }[]

const search = (as: string, body: unknown, version = 'v2') => api.call('POST', `/${version}/sessions/search`, { as, body })
const idsOf = (answer: { json(): { sessions?: { id: string }[] } }): string[] => (answer.json().sessions ?? []).map(({ id }) => id)

/** Sessions of two issuers, with few different values of everything, so that filters often meet; some terminated. */
const seed = async (): Promise<void> => {
  const stranger = (claims: object) => api.stranger.token({ ...claims }).then((token) => `Bearer ${token}`)
  const write = { permissions: ['session.write', 'session.delete'] }
  const creators = ['r1', 'r2']
  const writers = {
    [api.issuer.url]: await Promise.all(creators.map((sub) => api.bearer({ sub, ...write }))),
    [api.stranger.url]: await Promise.all(creators.map((sub) => stranger({ sub, ...write }))),
  }
  known = Array.from({ length: 72 }, (_, n): Known => ({
    id: `s${String((n * 29) % 72).padStart(2, '0')}`,
    issuer: n % 3 === 2 ? api.stranger.url : api.issuer.url,
    userId: `u${n % 4}`,
    resourceOwner: `o${Math.floor(n / 2) % 3}`,
    creator: creators[Math.floor(n / 5) % 2] ?? '',
    fingerprintId: n % 5 === 0 ? undefined : `f${n % 2}`,
    created: BIRTH + (moments[Math.floor(n / 3) % moments.length] ?? 0),
    expires: END + (moments[Math.floor(n / 7) % moments.length] ?? 0),
  }))
  for (const [issuer, bearers] of Object.entries(writers)) {
    for (const [at, as] of bearers.entries()) {
      const sessions = known
        .filter((session) => session.issuer === issuer && session.creator === creators[at])
        .map(({ id, userId, resourceOwner, fingerprintId, created, expires }) => ({
          id, userId, resourceOwner, userAgent: { fingerprintId }, creationDate: new Date(created).toISOString(), expirationDate: new Date(expires).toISOString(),
        }))
      expect((await api.call('POST', '/v1/sessions:batchCreate', { as, body: { sessions } })).statusCode).toBe(201)
    }
  }
  const ended = new Set(['s03', 's10', 's44', 's71'])
  for (const [at, as] of [[api.issuer.url, writers[api.issuer.url]?.[0]], [api.stranger.url, writers[api.stranger.url]?.[0]]]) {
    for (const { id, issuer } of known) if (ended.has(id) && issuer === at) expect((await api.delete(id, { as })).statusCode).toBe(200)
  }
  known = known.filter(({ id }) => !ended.has(id))
  const ours = ({ issuer }: Known) => issuer === api.issuer.url
  const own = known.find((session) => ours(session) && session.fingerprintId === 'f1')
  const token = (claims: Record<string, unknown>) => api.bearer(claims)
  readers = [
    { bearer: await token({ sub: 'r1', permissions: ['session.read'], sid: own?.id }), may: ours, creator: 'r1', fingerprintId: 'f1' },
    { bearer: await token({ sub: 'u1', permissions: ['session.read'], org: 'o1' }), may: (s) => ours(s) && (s.resourceOwner === 'o1' || s.userId === 'u1'), creator: 'u1', fingerprintId: null },
    { bearer: await token({ sub: 'u2' }), may: (s) => ours(s) && s.userId === 'u2', creator: 'u2', fingerprintId: null },
    { bearer: await token({ sub: 'nobody' }), may: () => false, creator: 'nobody', fingerprintId: null },
    { bearer: await stranger({ sub: 'r2', permissions: ['session.read'] }), may: (s) => !ours(s), creator: 'r2', fingerprintId: null },
  ]
}

beforeAll(async () => {
  api = await startSessionApi()
  await seed()
})
afterAll(() => api.close())

type Matcher = (session: Known, reader: (typeof readers)[number]) => boolean
interface Query {
  readonly wire: object
  readonly matches: Matcher
}

const pick = (values: readonly string[]) => fc.constantFrom(...values)
const dateQuery = (kind: 'creationDate' | 'expirationDate', base: number, read: (session: Known) => number): fc.Arbitrary<Query> =>
  fc.tuple(fc.constantFrom(...moments), fc.constantFrom(...methods), fc.boolean()).map(([offset, method, finer]) => {
    // A nanosecond more than a whole millisecond lies between two that can be stored, as does a quarter of one, which
    // a double still holds.
    const date = new Date(base + offset).toISOString().replace('Z', finer ? '000001Z' : 'Z')
    return {
      wire: { [`${kind}Query`]: { [kind]: date, method: `TIMESTAMP_QUERY_METHOD_${method}` } },
      matches: (session) => compare[method](read(session), base + offset + (finer ? 0.25 : 0)),
    }
  })

const query: fc.Arbitrary<Query> = fc.oneof(
  fc.uniqueArray(pick(['s00', 's03', 's07', 's12', 's20', 's33', 's44', 's59', 's60', 'none']), { maxLength: 8 }).map((ids): Query => ({ wire: { idsQuery: { ids } }, matches: ({ id }) => ids.includes(id) })),
  pick(['u0', 'u1', 'u2', 'u9']).map((id): Query => ({ wire: { userIdQuery: { id } }, matches: ({ userId }) => userId === id })),
  pick(['r1', 'r2', 'r9']).map((id): Query => ({ wire: { creatorQuery: { id } }, matches: ({ creator }) => creator === id })),
  fc.constant<Query>({ wire: { creatorQuery: {} }, matches: ({ creator }, reader) => creator === reader.creator }),
  pick(['f0', 'f1', 'f9']).map((fingerprintId): Query => ({ wire: { userAgentQuery: { fingerprintId } }, matches: (session) => session.fingerprintId === fingerprintId })),
  dateQuery('creationDate', BIRTH, ({ created }) => created),
  dateQuery('expirationDate', END, ({ expires }) => expires),
)

const page = fc.record({ offset: fc.nat(30), limit: fc.nat(20), asc: fc.boolean() })

describe('a search', () => {
  it('G6: finds, counts, sorts and pages exactly what an oracle does, for every kind of reader', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(4), fc.array(query, { maxLength: 3 }), page, async (who, queries, { offset, limit, asc }) => {
        const reader = readers[who]
        if (reader === undefined) throw new Error('no such reader')
        const expected = known
          .filter((session) => reader.may(session) && queries.every(({ matches }) => matches(session, reader)))
          .sort((one, other) => (one.created - other.created || (one.id < other.id ? -1 : 1)) * (asc ? 1 : -1))
        const answer = await search(reader.bearer, {
          query: { offset: String(offset), limit, asc },
          queries: queries.map(({ wire }) => wire),
          sortingColumn: 'SESSION_FIELD_NAME_CREATION_DATE',
        })
        expect(answer.statusCode).toBe(200)
        expect(idsOf(answer)).toEqual(expected.slice(offset, offset + (limit || 100)).map(({ id }) => id))
        expect(answer.json().details.totalResult ?? '0').toBe(String(expected.length))
      }),
      { numRuns: 400 },
    )
  })

  it('compares with the user agent of the caller’s own session where none is named', async () => {
    const [reader] = readers
    const expected = known.filter((session) => reader?.may(session) && session.fingerprintId === 'f1').map(({ id }) => id)
    const answer = await search(reader?.bearer ?? '', { queries: [{ userAgentQuery: {} }] })
    expect(idsOf(answer).sort()).toEqual(expected.sort())
  })

  it('shows each session as GET does, newest first, under both versions', async () => {
    const bearer = readers[0]?.bearer ?? ''
    const answer = await search(bearer, { query: { limit: 2 } })
    const [first] = answer.json().sessions
    expect((await api.call('GET', `/v2/sessions/${first.id}`, { as: bearer })).json()).toEqual({ session: first })
    expect(answer.json().details).toEqual({ totalResult: expect.stringMatching(/^\d+$/), processedSequence: '1', timestamp: expect.stringMatching(/\.\d{3}Z$/) })
    expect(idsOf(await search(bearer, { query: { limit: 2 } }, 'v2beta'))).toEqual(idsOf(answer))
  })

  it('needs no body, and leaves out what is empty', async () => {
    const nobody = readers[3]?.bearer ?? ''
    for (const body of [undefined, {}, '']) expect((await search(nobody, body)).json()).toEqual({ details: { timestamp: expect.any(String) } })
  })

  it('reads names of the .proto, numbers of enums, null for nothing, and ignores what it does not know', async () => {
    const bearer = readers[0]?.bearer ?? ''
    const date = new Date(BIRTH + 1_000).toISOString()
    const plain = await search(bearer, {
      query: { limit: 5, asc: true },
      sortingColumn: 'SESSION_FIELD_NAME_CREATION_DATE',
      queries: [{ userIdQuery: { id: 'u1' } }, { creationDateQuery: { creationDate: date, method: 'TIMESTAMP_QUERY_METHOD_LESS_OR_EQUALS' } }],
    })
    const odd = await search(bearer, {
      query: { limit: '5', asc: true, offset: null, other: 1 },
      sorting_column: 1,
      queries: [{ user_id_query: { id: 'u1' }, idsQuery: null }, { creation_date_query: { creation_date: date, method: 4 } }],
      unknown: { deeply: [] },
    })
    expect(idsOf(plain).length).toBeGreaterThan(0)
    expect(idsOf(odd)).toEqual(idsOf(plain))
  })

  it('holds at most 1,000, and 100 unless told', async () => {
    const bearer = readers[0]?.bearer ?? ''
    expect((await search(bearer, { query: { limit: 1_000 } })).statusCode).toBe(200)
    const answer = await search(bearer, { query: { limit: 1_001 } })
    expect([answer.statusCode, answer.json().code]).toEqual([400, 3])
    const many = Array.from({ length: 120 }, (_, n) => ({ id: `many-${n}`, userId: 'many', resourceOwner: 'o9' }))
    const writer = await api.bearer({ sub: 'w', permissions: ['session.write', 'session.delete'] })
    await api.call('POST', '/v1/sessions:batchCreate', { as: writer, body: { sessions: many } })
    const found = await search(await api.bearer({ sub: 'many' }), {})
    expect([idsOf(found).length, found.json().details.totalResult]).toEqual([100, '120'])
    for (const { id } of many) await api.delete(id, { as: writer })
    expect((await search(await api.bearer({ sub: 'many' }), {})).json().sessions).toBeUndefined()
  })

  it('G2: lists and counts a session no longer from the moment its 200 was sent', async () => {
    const writer = await api.bearer({ sub: 'w', permissions: ['session.write', 'session.delete'] })
    const gone = await api.bearer({ sub: 'gone' })
    await api.call('PUT', '/v1/sessions/gone', { as: writer, body: { userId: 'gone', resourceOwner: 'o9' } })
    expect(idsOf(await search(gone, {}))).toEqual(['gone'])
    await api.delete('gone', { as: writer })
    expect((await search(gone, {})).json()).toEqual({ details: { timestamp: expect.any(String) } })
  })

  it('still lists an expired session', async () => {
    const writer = await api.bearer({ sub: 'w', permissions: ['session.write', 'session.delete'] })
    await api.call('PUT', '/v1/sessions/expired', { as: writer, body: { userId: 'expired', resourceOwner: 'o9' } })
    await api.database.sql.query(`UPDATE sessions SET expires_at = now() - interval '1 day' WHERE id = 'expired'`)
    expect(idsOf(await search(await api.bearer({ sub: 'expired' }), {}))).toEqual(['expired'])
    await api.delete('expired', { as: writer })
  })
})

describe('a bad search', () => {
  it.each<[string, object, keyof typeof errorKinds]>([
    ['an unknown query', { fooQuery: {} }, 'search_query_unknown'],
    ['an empty query', {}, 'search_query_unknown'],
    ['two queries in one', { userIdQuery: { id: 'u1' }, idsQuery: { ids: [] } }, 'search_query_unknown'],
    ['an empty creator', { creatorQuery: { id: '' } }, 'search_creator_missing'],
    ['an empty user agent', { userAgentQuery: { fingerprintId: '' } }, 'search_user_agent_missing'],
    ['the user agent of a caller without session', { userAgentQuery: {} }, 'search_user_agent_missing'],
  ])('G12: %s is refused by its id', async (_name, one, kind) => {
    const answer = await search(readers[2]?.bearer ?? '', { queries: [one] })
    expect(answer.statusCode).toBe(400)
    expect(answer.json()).toMatchObject({ code: 3, details: [{ id: errorKinds[kind].id }] })
  })

  it.each<[string, unknown]>([
    ['null', 'null'],
    ['an array', []],
    ['a broken body', '{'],
    ['a negative limit', { query: { limit: -1 } }],
    ['a limit with a fraction', { query: { limit: 1.5 } }],
    ['a limit that is no number', { query: { limit: 'ten' } }],
    ['too great an offset', { query: { offset: '1000001' } }],
    ['a text for asc', { query: { asc: 'true' } }],
    ['an unknown sorting column', { sortingColumn: 'SESSION_FIELD_NAME_ID' }],
    ['an unknown method', { queries: [{ creationDateQuery: { creationDate: '2026-01-01T00:00:00Z', method: 'LATER' } }] }],
    ['a method number that is none', { queries: [{ creationDateQuery: { creationDate: '2026-01-01T00:00:00Z', method: 5 } }] }],
    ['a date query without date', { queries: [{ creationDateQuery: {} }] }],
    ['a date that does not exist', { queries: [{ expirationDateQuery: { expirationDate: '2026-02-30T00:00:00Z' } }] }],
    ['a year that Postgres does not know', { queries: [{ expirationDateQuery: { expirationDate: '0000-01-01T00:00:00Z' } }] }],
    ['a NUL', { queries: [{ userIdQuery: { id: 'a\u0000' } }] }],
    ['21 queries', { queries: Array<object>(21).fill({ userIdQuery: { id: 'u1' } }) }],
    ['1,001 ids', { queries: [{ idsQuery: { ids: Array<string>(1_001).fill('x') } }] }],
    ['null for a query', { queries: [null] }],
  ])('G12: %s is 400', async (_name, body) => {
    const answer = await search(readers[0]?.bearer ?? '', body)
    expect([answer.statusCode, answer.json().code]).toEqual([400, 3])
  })

  it.each<[string, unknown]>([
    ['sortingColumn: must be one of SESSION_FIELD_NAME_UNSPECIFIED, SESSION_FIELD_NAME_CREATION_DATE', { sortingColumn: 'SESSION_FIELD_NAME_ID' }],
    ['query.limit: must be a whole number', { query: { limit: 'ten' } }],
    ['queries[1].creationDateQuery.method: must be one of TIMESTAMP_QUERY_METHOD_EQUALS, ', { queries: [{ userIdQuery: { id: 'u1' } }, { creationDateQuery: { creationDate: '2026-01-01T00:00:00Z', method: 'LATER' } }] }],
  ])('G12: says what a field takes: %s', async (says, body) => {
    const answer = await search(readers[0]?.bearer ?? '', body)
    expect([answer.statusCode, answer.json().message]).toEqual([400, expect.stringContaining(says)])
  })
})
