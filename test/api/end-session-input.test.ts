/** G12: whatever stands in the path and the body of a DELETE gets a documented answer, and changes nothing it should not. */
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { seedSessions } from '../harness/seed.ts'
import { startApi } from './api.ts'
import type { TestApi } from './api.ts'

let api: TestApi
let admin: string
let user: string

beforeAll(async () => {
  api = await startApi()
  admin = await api.bearer({ permissions: ['session.delete'] })
  user = await api.bearer({ permissions: ['session.delete'], org: 'o1' })
})
afterAll(() => api.close())

const live = (id: string) => seedSessions(api.database.sql, [{ id, issuer: api.issuer.url }])
const ask = (path: string, as = admin) => api.app.inject({ method: 'DELETE', url: `/v2/sessions/${path}`, headers: { authorization: as } })

describe('ids', () => {
  it.each(['a/b', '../users', 'search', 'a b', '%2f', 'ü', '😀'.repeat(10), '/', 'a?b#c', "'; DROP TABLE sessions; --", 'a:b', '0', '__proto__'])('ends the session "%s"', async (id) => {
    await live(id)
    const answer = await api.delete(id, { as: admin })
    expect([answer.statusCode, answer.json().details.sequence]).toEqual([200, '2'])
  })

  it('counts 200 characters as characters, not as bytes', async () => {
    await live('😀'.repeat(200))
    expect((await api.delete('😀'.repeat(200), { as: admin })).statusCode).toBe(200)
  })

  it.each([
    ['empty', ''],
    ['201 characters', 'x'.repeat(201)],
    ['201 characters of four bytes', encodeURIComponent('😀'.repeat(201))],
    ['6,000 bytes', 'x'.repeat(6_000)],
    ['NUL', 'a%00b'],
    ['a line break', 'a%0d%0ab'],
    ['DEL', 'a%7f'],
    ['a C1 control character', 'a%C2%85'],
    ['a malformed encoding', '%zz'],
    ['an encoding cut short', 'a%C3'],
    ['overlong UTF-8', '%C0%AF'],
    ['half a surrogate pair', '%ED%A0%80'],
  ])('refuses an id that is or has %s', async (_, path) => {
    const answer = await ask(path)
    expect([answer.statusCode, answer.json().code]).toEqual([400, 3])
    expect(answer.json()).not.toHaveProperty('details')
  })

  it('finds nothing under a path that only looks like one of ours', async () => {
    await live('quiet')
    for (const url of ['/v2/sessions/quiet/', '//v2/sessions/quiet', '/v2//sessions/quiet', '/V2/sessions/quiet', '/v2/sessions/quiet/x', '/v3/sessions/quiet', '/v2/sessions%2Fquiet']) {
      const answer = await api.app.inject({ method: 'DELETE', url, headers: { authorization: admin } })
      expect([answer.statusCode, answer.body], url).toEqual([404, '{"code":5,"message":"Not Found"}'])
    }
    const { rows } = await api.database.sql.query(`SELECT state FROM sessions WHERE id = 'quiet'`)
    expect(rows).toEqual([{ state: 'active' }])
  })

  it('never answers a 500, whatever the id', async () => {
    const path = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 300 }).map(encodeURIComponent),
      fc.array(fc.constantFrom('%', '2', 'F', 'f', '0', '/', '.', '..', ';', '?', '#', ':', '*', '(', ' ', '%00', '%25', '%u0041', '\\', '+', 'é', '~'), { maxLength: 30 }).map((parts) => parts.join('')),
    )
    await fc.assert(
      fc.asyncProperty(path, fc.boolean(), async (id, scoped) => {
        const { statusCode, headers, body } = await ask(id, scoped ? user : admin)
        expect([200, 400, 404, 405]).toContain(statusCode)
        expect(headers['content-type']).toMatch(/^application\/json/)
        if (statusCode !== 200) expect(typeof JSON.parse(body).code).toBe('number')
      }),
      { numRuns: 500 },
    )
  })
})

describe('bodies', () => {
  const send = (payload: string | Buffer | undefined, type: string | undefined) =>
    api.app.inject({
      method: 'DELETE',
      url: '/v2/sessions/body',
      headers: { authorization: admin, ...(type === undefined ? {} : { 'content-type': type }) },
      ...(payload === undefined ? {} : { payload }),
    })

  beforeAll(() => live('body'))

  it.each([undefined, 'application/json', 'text/plain', 'application/json; charset=utf-16', 'application/x-www-form-urlencoded', 'application/grpc', 'no/type/at;all', ';;;', 'application/json\t', 'multipart/form-data'])(
    'takes no body, an empty one and a JSON object under the content type %s',
    async (type) => {
      for (const payload of [undefined, '', '{}', ' {"unknown": [1, {"sessionToken": 5}], "sessionId": "other", "sessionToken": null}\n', '{"sessionToken":""}']) {
        const answer = await send(payload, type)
        expect(answer.statusCode, `${payload}: ${answer.body}`).toBe(200)
      }
    },
  )

  it.each(['[]', '[{}]', 'null', '"{}"', '1', 'true', '{', '{}}', '{"sessionToken":1}', '{"session_token":{}}', 'sessionToken=x', '{"sessionToken":"a","sessionToken":"b"}', '{"sessionToken":"a","session_token":"a"}', '['.repeat(2_000)].map((payload) => [payload.slice(0, 60), payload] as const))(
    'refuses the body %s',
    async (_, payload) => {
      for (const type of [undefined, 'application/json', 'text/plain']) {
        const answer = await send(payload, type)
        expect([answer.statusCode, answer.json().code]).toEqual([400, 3])
      }
    },
  )

  it('refuses a body of more than 4 kB, announced or not', async () => {
    const announced = await send(`{"x":"${'x'.repeat(5_000)}"}`, 'application/json')
    expect([announced.statusCode, announced.json()]).toEqual([413, { code: 3, message: 'Request body too large' }])
  })

  it('never answers a 500, whatever the body', async () => {
    const body = fc.oneof(fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)), fc.json().map((text) => Buffer.from(text)))
    await fc.assert(
      fc.asyncProperty(body, async (payload) => {
        expect([200, 400, 403, 413]).toContain((await send(payload, 'application/json')).statusCode)
      }),
      { numRuns: 300 },
    )
  })
})
