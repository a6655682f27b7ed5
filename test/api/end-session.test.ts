/** The table of DESIGN §4, row by row, over HTTP with real tokens and a real database. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { hashSessionToken, newSessionToken } from '../../src/auth/session-token.ts'
import { CurfewError } from '../../src/errors.ts'
import type { TerminateCommand } from '../../src/model.ts'
import { seedSessions } from '../harness/seed.ts'
import type { SeedSession } from '../harness/seed.ts'
import { startApi } from './api.ts'
import type { TestApi } from './api.ts'

const failing = new Map<string, CurfewError>()
let api: TestApi
let admin: string
let anna: string
let organizationAdmin: string
let nobody: string

const seed = (...sessions: SeedSession[]) => seedSessions(api.database.sql, sessions.map((session) => ({ issuer: api.issuer.url, ...session })))

const events = async (id: string): Promise<number> => {
  const { rows } = await api.database.sql.query(`SELECT FROM session_events WHERE session_id = $1 AND type = 'session.terminated'`, [id])
  return rows.length
}

const body = (kind: ConstructorParameters<typeof CurfewError>[0]): string => JSON.stringify(new CurfewError(kind).body())

beforeAll(async () => {
  api = await startApi({
    ask: async (ask, command: TerminateCommand) => {
      const failure = failing.get(command.sessionId)
      if (failure !== undefined) throw failure
      return ask(command)
    },
  })
  admin = await api.bearer({ sub: 'admin', permissions: ['session.delete'] })
  anna = await api.bearer({ sub: 'anna' })
  organizationAdmin = await api.bearer({ sub: 'o1-admin', permissions: ['session.delete'], org: 'o1' })
  nobody = await api.bearer({ sub: 'nobody' })
})
afterAll(() => api.close())

describe('may', () => {
  it('G1: answers 200 with the details of the committed event', async () => {
    await seed({ id: 'live', resourceOwner: 'o"1\\ü' })
    const answer = await api.delete('live', { as: admin })
    expect(answer.statusCode).toBe(200)
    expect(answer.headers['content-type']).toMatch(/^application\/json/)
    const { rows } = await api.database.sql.query(
      `SELECT sequence::text, to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS at, resource_owner, actor_subject, mode
       FROM session_events WHERE session_id = 'live' AND type = 'session.terminated'`,
    )
    expect(rows).toHaveLength(1)
    expect(answer.json()).toEqual({ details: { sequence: '2', changeDate: rows[0].at, resourceOwner: 'o"1\\ü' } })
    expect(rows[0]).toMatchObject({ sequence: '2', actor_subject: 'admin', mode: 'logout' })
  })

  it('G3: asking again gives the same bytes and no second event', async () => {
    await seed({ id: 'twice', userId: 'anna' })
    const first = await api.delete('twice', { as: admin })
    for (const as of [admin, anna, organizationAdmin]) {
      const again = await api.delete('twice', { as })
      expect([again.statusCode, again.body]).toEqual([200, first.body])
    }
    expect(await events('twice')).toBe(1)
  })

  it('G3: 50 at once of one session give one event and one answer', async () => {
    await seed({ id: 'many', userId: 'anna' })
    const answers = await Promise.all(Array.from({ length: 50 }, (_, n) => api.delete('many', { as: n % 2 === 0 ? admin : anna })))
    expect(new Set(answers.map(({ statusCode, body: text }) => `${statusCode} ${text}`)).size).toBe(1)
    expect(await events('many')).toBe(1)
  })

  it('counts an expired session as live', async () => {
    await seed({ id: 'expired', expiresInSeconds: -60 })
    expect((await api.delete('expired', { as: admin })).json()).toMatchObject({ details: { sequence: '2' } })
  })

  it('lets a user end their own session, without any permission', async () => {
    await seed({ id: 'annas', userId: 'anna' })
    expect((await api.delete('annas', { as: anna })).statusCode).toBe(200)
  })

  it('lets an administrator of the organization end its sessions', async () => {
    await seed({ id: 'of-o1', resourceOwner: 'o1' })
    expect((await api.delete('of-o1', { as: organizationAdmin })).statusCode).toBe(200)
  })

  it('lets a session token decide alone, whoever brings it, and again afterwards', async () => {
    const { token } = newSessionToken()
    await seed({ id: 'by-token', tokenHash: hashSessionToken(token), resourceOwner: 'o9' })
    const first = await api.delete('by-token', { as: nobody, payload: { sessionToken: token } })
    expect(first.statusCode).toBe(200)
    const again = await api.delete('by-token', { as: nobody, payload: { session_token: token } })
    expect([again.statusCode, again.body]).toEqual([200, first.body])
  })

  it('answers the same under /v2beta', async () => {
    await seed({ id: 'beta' })
    const first = await api.app.inject({ method: 'DELETE', url: '/v2beta/sessions/beta', headers: { authorization: admin } })
    expect(first.statusCode).toBe(200)
    expect((await api.delete('beta', { as: admin })).body).toBe(first.body)
  })
})

describe('may not', () => {
  it('refuses a wrong session token, and one of another session, even from an administrator or the owner', async () => {
    const { token } = newSessionToken()
    await seed({ id: 'guarded', userId: 'anna', tokenHash: hashSessionToken(token) }, { id: 'other', userId: 'anna', tokenHash: hashSessionToken('x') })
    for (const as of [admin, anna, organizationAdmin]) {
      for (const sessionToken of ['wrong', `${token}x`, 'x'.repeat(3_000)]) {
        const answer = await api.delete('guarded', { as, payload: { sessionToken } })
        expect([answer.statusCode, answer.body]).toEqual([403, body('session_token_invalid')])
      }
      expect((await api.delete('other', { as, payload: { sessionToken: token } })).body).toBe(body('session_token_invalid'))
      expect((await api.delete('unknown', { as, payload: { sessionToken: token } })).body).toBe(body('session_token_invalid'))
    }
    expect(await events('guarded')).toBe(0)
  })

  it('G6: answers one 403 to who holds the permission nowhere, whether or not the session exists', async () => {
    await seed({ id: 'not-yours', userId: 'anna' })
    const answers = await Promise.all([api.delete('not-yours', { as: nobody }), api.delete('not-there', { as: nobody })])
    for (const { statusCode, body: text } of answers) expect([statusCode, text]).toEqual([403, body('permission_denied')])
    expect(named(answers[0].headers)).toEqual(named(answers[1].headers))
  })

  it('G6: answers one 404, in the same bytes, for an unknown session and for one out of reach', async () => {
    await seed({ id: 'of-o2', resourceOwner: 'o2' }, { id: 'of-another-issuer', resourceOwner: 'o1', issuer: api.stranger.url })
    const answers = await Promise.all(['of-o2', 'of-another-issuer', 'not-there'].map((id) => api.delete(id, { as: organizationAdmin })))
    for (const answer of answers) {
      expect([answer.statusCode, answer.body]).toEqual([404, body('session_not_found')])
      expect(named(answer.headers)).toEqual(named(answers[0]?.headers ?? {}))
    }
    expect(await events('of-o2')).toBe(0)
  })

  it('answers 404 to an administrator of the instance for what its issuer does not speak for', async () => {
    await seed({ id: 'strange', issuer: api.stranger.url })
    const answers = await Promise.all(['strange', 'not-there'].map((id) => api.delete(id, { as: admin })))
    for (const { statusCode, body: text } of answers) expect([statusCode, text]).toEqual([404, body('session_not_found')])
    expect(await events('strange')).toBe(0)
  })

  it('does not take a subject of another issuer for the user', async () => {
    await seed({ id: 'annas-own', userId: 'anna' })
    const otherAnna = `Bearer ${await api.stranger.token({ sub: 'anna' })}`
    expect((await api.delete('annas-own', { as: otherAnna })).statusCode).toBe(403)
  })
})

describe('who asks', () => {
  it('answers 401 with a challenge without credentials', async () => {
    const answer = await api.delete('any')
    expect([answer.statusCode, answer.body]).toEqual([401, '{"code":16,"message":"auth header missing"}'])
    expect(answer.headers['www-authenticate']).toBe('Bearer realm="curfew"')
  })

  it.each(['Basic YTpi', 'Bearer', 'Bearer ', 'Bearer a b', 'token', 'Bearer a, Bearer b'])('answers 401 to the malformed header "%s"', async (as) => {
    const answer = await api.delete('any', { as })
    expect([answer.statusCode, answer.body]).toEqual([401, body('auth_header_malformed')])
    expect(answer.headers['www-authenticate']).toMatch(/^Bearer realm="curfew", error="invalid_request"$/)
  })

  it('answers 401 to a token that is no good', async () => {
    const old = await api.bearer({ permissions: ['session.delete'], exp: 1_700_000_000, iat: 1_699_999_000 })
    for (const as of ['Bearer garbage', old]) {
      const answer = await api.delete('any', { as })
      expect([answer.statusCode, answer.body]).toEqual([401, body('token_invalid')])
      expect(answer.headers['www-authenticate']).toMatch(/^Bearer realm="curfew", error="invalid_token"$/)
    }
  })

  it('refuses the bearer token of a terminated session, remembered or not', async () => {
    await seed({ id: 'annas-login', userId: 'anna' })
    const as = await api.bearer({ sub: 'anna', sid: 'annas-login' })
    expect((await api.delete('annas-login', { as })).statusCode).toBe(200)
    const after = await api.delete('annas-login', { as })
    expect([after.statusCode, after.body]).toEqual([401, body('token_invalid')])
  })

  it('asks who before it looks at id and body', async () => {
    for (const [url, payload] of [['/v2/sessions/', '{}'], ['/v2/sessions/%00', '{}'], ['/v2/sessions/a', '{'], ['/v2/sessions/a', 'x'.repeat(9_000)]]) {
      const answer = await api.app.inject({ method: 'DELETE', url: url ?? '', payload: payload ?? '' })
      expect(answer.statusCode).toBe(401)
    }
  })
})

describe('cannot', () => {
  it.each([
    ['not_committed_in_time', 504, undefined],
    ['unavailable', 503, '2'],
    ['overloaded', 503, '1'],
  ] as const)('says %s', async (kind, status, retryAfter) => {
    failing.set(kind, new CurfewError(kind))
    const answer = await api.delete(kind, { as: admin })
    expect([answer.statusCode, answer.body, answer.headers['retry-after']]).toEqual([status, body(kind), retryAfter])
  })

  it('answers 503 where Postgres is away', async () => {
    const cut = await startApi()
    const [instance, owner] = await Promise.all([cut.bearer({ permissions: ['session.delete'] }), cut.bearer({})])
    await cut.database.drop()
    for (const as of [instance, owner]) {
      const answer = await cut.delete('any', { as })
      expect([answer.statusCode, answer.json().code, answer.headers['retry-after']]).toEqual([503, 14, '2'])
    }
    await cut.app.close()
    await cut.db.$disconnect()
    await Promise.all([cut.issuer.close(), cut.stranger.close()])
  })

  it('tells a caller that asks too often to wait, and never one that carries the flood', async () => {
    const limited = await startApi({ callerPerSecond: 3, refusedPerMinute: 2 })
    const [often, flood] = await Promise.all([limited.bearer({ sub: 'often' }), limited.bearer({ permissions: ['session.delete'] })])
    const statuses = async (as: string, n: number) => {
      const answers = []
      for (let count = 0; count < n; count += 1) answers.push((await limited.delete('nope', { as })).statusCode)
      return answers
    }
    expect(await statuses(often, 6)).toContain(429)
    expect(new Set(await statuses(flood, 20))).toEqual(new Set([404]))
    expect(await statuses('Bearer bad', 4)).toEqual([401, 401, 429, 429])
    expect((await limited.delete('nope', { as: 'Bearer bad' })).headers['retry-after']).toBe('1')
    await limited.close()
  })

  it('G10: tells nothing of the inside in a 500, and logs it without the request’s secrets', async () => {
    failing.set('broken', new Error('SELECT secret FROM somewhere') as CurfewError)
    const answer = await api.delete('broken', { as: admin, headers: { 'x-request-id': 'trace-me' } })
    expect([answer.statusCode, answer.body]).toEqual([500, body('internal')])
    const line = api.logged.find((text) => text.includes('trace-me')) ?? ''
    expect(line).toContain('http.failed')
    expect(api.logged.join('')).not.toContain(admin.slice(7))
  })
})

/** Headers that do not differ from one request to the next by nature. */
const named = (headers: Record<string, unknown>): Record<string, unknown> => {
  const { date: _, 'x-request-id': __, ...rest } = headers
  return rest
}
