/** What no well-meaning client sends, as bytes on a socket: smuggling, broken HTTP, paths that clients would clean. */
import { connect } from 'node:net'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { seedSessions } from '../harness/seed.ts'
import { startApi } from './api.ts'
import type { TestApi } from './api.ts'
import { exchange } from './wire.ts'

let api: TestApi
let port: number
let admin: string

beforeAll(async () => {
  api = await startApi()
  port = await api.listen()
  admin = await api.bearer({ permissions: ['session.delete'] })
})
afterAll(() => api.close())

const live = (id: string) => seedSessions(api.database.sql, [{ id, issuer: api.issuer.url }])
const isLive = async (id: string): Promise<boolean> => {
  const { rows } = await api.database.sql.query('SELECT state FROM sessions WHERE id = $1', [id])
  return rows[0]?.state === 'active'
}
const request = (path: string, headers: readonly string[] = [], body = '') =>
  [`DELETE ${path} HTTP/1.1`, 'Host: x', `Authorization: ${admin}`, 'Connection: close', ...headers, '', body].join('\r\n')
const refusedHttp = '{"code":3,"message":"Malformed HTTP request"}'

describe('broken HTTP', () => {
  const smuggled = 'DELETE /v2/sessions/victim HTTP/1.1\r\nHost: x\r\n\r\n'

  it.each([
    ['a length and chunks', ['Content-Length: 4', 'Transfer-Encoding: chunked']],
    ['two lengths that differ', ['Content-Length: 2', 'Content-Length: 40']],
    ['two lengths in one header', ['Content-Length: 2, 40']],
    ['an obscure transfer coding', ['Transfer-Encoding: xchunked']],
    ['a space before the colon', ['Content-Length : 2']],
    ['a negative length', ['Content-Length: -1']],
    ['a folded header', ['X-A: 1', ' folded: 2', 'Content-Length: 1\n']],
    ['a bare line feed', ['X-A: 1\nContent-Length: 40']],
  ])('refuses %s and reads no second request', async (_, headers) => {
    await live('victim').catch(() => {})
    const { status, text } = await exchange(port, request('/v2/sessions/nope', headers, `{}\r\n0\r\n\r\n${smuggled}`))
    expect(status, text).toBe(400)
    expect(text.match(/HTTP\/1\.1/g)).toHaveLength(1)
    expect(await isLive('victim')).toBe(true)
  })

  it('says so in the documented shape, and closes', async () => {
    const { head, body } = await exchange(port, 'nonsense\r\n\r\n')
    expect(body).toBe(refusedHttp)
    expect(head.toLowerCase()).toContain('content-type: application/json')
    expect(head.toLowerCase()).toContain('connection: close')
  })

  it('refuses a request without Host', async () => {
    const { status } = await exchange(port, `DELETE /v2/sessions/nope HTTP/1.1\r\nAuthorization: ${admin}\r\nConnection: close\r\n\r\n`)
    expect(status).toBe(400)
  })

  it('answers 431 to 20 kB of headers, in the documented shape', async () => {
    const { status, body } = await exchange(port, request('/v2/sessions/nope', [`X-Long: ${'x'.repeat(20_000)}`]))
    expect([status, body]).toEqual([431, '{"code":3,"message":"Request header fields too large"}'])
  })

  it('hangs up on headers that do not come to an end', async () => {
    const begun = Date.now()
    const answer = await new Promise<string>((resolve) => {
      const socket = connect(port, '127.0.0.1', () => socket.write('DELETE /v2/sessions/slow HTTP/1.1\r\nHost: x\r\n'))
      let text = ''
      const drip = setInterval(() => socket.write('X-Drip: 1\r\n'), 500)
      socket.on('data', (chunk) => (text += chunk.toString()))
      socket.on('error', () => {})
      socket.on('close', () => {
        clearInterval(drip)
        resolve(text)
      })
    })
    expect(answer).toContain('HTTP/1.1 408')
    expect(answer).toContain('{"code":4,"message":"Request not received in time"}')
    expect(Date.now() - begun).toBeLessThan(9_000)
  })
})

describe('bodies in chunks', () => {
  const chunked = (body: string) => `${Buffer.byteLength(body).toString(16)}\r\n${body}\r\n0\r\n\r\n`

  it('reads a session token that comes in chunks', async () => {
    await live('chunked')
    const { status, body } = await exchange(port, request('/v2/sessions/chunked', ['Transfer-Encoding: chunked'], chunked('{"sessionToken":"wrong"}')))
    expect([status, JSON.parse(body).code]).toEqual([403, 7])
    expect(await isLive('chunked')).toBe(true)
  })

  it('refuses more than 4 kB that was never announced', async () => {
    const { status, body } = await exchange(port, request('/v2/sessions/nope', ['Transfer-Encoding: chunked'], chunked(`{"x":"${'x'.repeat(6_000)}"}`)))
    expect([status, JSON.parse(body).code]).toEqual([413, 3])
  })

  it('does not act on a body that never comes to its end', async () => {
    await live('half')
    await new Promise<void>((resolve) => {
      const socket = connect(port, '127.0.0.1', () => {
        socket.write(request('/v2/sessions/half', ['Content-Length: 100'], '{"a":1}'))
        socket.end()
      })
      socket.resume()
      socket.on('error', () => {})
      socket.on('close', () => resolve())
    })
    expect(await isLive('half')).toBe(true)
  })
})

describe('paths', () => {
  it('takes them as they are: nothing is cleaned, so nothing is confused', async () => {
    await live('plain')
    for (const path of ['/v2/sessions/../sessions/plain', '/v2/./sessions/plain', '//v2/sessions/plain', '/v2/sessions//plain', '/v2/sessions/plain/..', '/v2/sessions/plain/', '\\v2\\sessions\\plain', '/v2/sessions%2Fplain', '/v2/%2e%2e/v2/sessions/plain', '/v2/sessions/plain#fragment', '/v2/sessions/plain%23fragment']) {
      const { status, body } = await exchange(port, request(path))
      expect([404, 400], `${path}: ${status} ${body}`).toContain(status)
    }
    expect(await isLive('plain')).toBe(true)
  })

  it('ends the session ".." when it is asked to', async () => {
    await live('..')
    expect((await exchange(port, request('/v2/sessions/..'))).status).toBe(200)
    expect(await isLive('..')).toBe(false)
  })

  it('never answers a 500, whatever the path', async () => {
    const path = fc.array(fc.constantFrom('%', '2', 'F', '0', '/', '.', '..', ';', '?', '#', ':', '*', '(', '%00', '%25', '%u0041', '\\', '+', '~', '[', '%C3%A9', '%FF', '|', '"', '<'), { maxLength: 30 })
    await fc.assert(
      fc.asyncProperty(path, async (parts) => {
        const { status, text } = await exchange(port, request(`/v2/sessions/${parts.join('')}`))
        expect([200, 400, 404, 405], text).toContain(status)
      }),
      { numRuns: 300 },
    )
  })
})

describe('connections', () => {
  it('answers pipelined requests each for itself', async () => {
    await live('first')
    const keep = request('/v2/sessions/first').replace('Connection: close\r\n', '')
    const { text } = await exchange(port, keep + request('/v2/sessions/nope'))
    expect(text.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 200', 'HTTP/1.1 404'])
  })
})
