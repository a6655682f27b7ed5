import { METHODS } from 'node:http'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { buildOpsServer } from '../../src/api/ops.ts'
import type { Readiness } from '../../src/api/routes/health.ts'
import { createTelemetry } from '../../src/telemetry.ts'
import { seedSessions } from '../harness/seed.ts'
import { startApi } from './api.ts'
import type { TestApi } from './api.ts'

let api: TestApi
let admin: string
let state: Readiness | 'throws' = { postgres: 'ok', queue: 'ok', draining: false }
const routes: { url: string; methods: string[] }[] = []

beforeAll(async () => {
  api = await startApi({
    trustProxy: ['10.0.0.0/8'],
    refusedPerMinute: 1,
    change: {
      ready: async () => {
        if (state === 'throws') throw new Error('connect ECONNREFUSED')
        return state
      },
    },
    onRoute: ({ url, method, schema }) => {
      if (schema?.hide !== true) routes.push({ url, methods: Array.isArray(method) ? method : [method] })
    },
  })
  admin = await api.bearer({ permissions: ['session.delete'] })
})
afterAll(() => api.close())

const call = (method: string, url: string, headers: Record<string, string> = {}, remoteAddress?: string) =>
  api.app.inject({ method: method as 'GET', url, headers: { authorization: admin, ...headers }, ...(remoteAddress === undefined ? {} : { remoteAddress }) })

describe('paths and methods', () => {
  it.each(['/', '/v1', '/v2', '/v2/sessions/a/b', '/v4/sessions/a', '/favicon.ico', '/v1/receivers/a/b/c', '/metrics'])('answers 404 code 5 to the unknown path %s', async (url) => {
    for (const method of ['GET', 'DELETE', 'POST', 'PROPFIND']) {
      const answer = await call(method, url)
      expect([answer.statusCode, answer.body]).toEqual([404, '{"code":5,"message":"Not Found"}'])
    }
  })

  it.each([
    ['/v2/sessions/a', 'DELETE, GET, HEAD'],
    ['/v2beta/sessions/a', 'DELETE, GET, HEAD'],
    ['/v2/sessions/search', 'DELETE, GET, HEAD, POST'],
    ['/v2/sessions', ''],
    ['/v2beta/sessions', ''],
    ['/v1/receivers', 'GET, HEAD'],
    ['/v1/receivers/a', 'DELETE, GET, HEAD, PUT'],
    ['/v1/receivers/a:rotateSecret', 'POST'],
    ['/v1/receivers/a:verify', 'POST'],
    ['/v1/deliveries/1:redeliver', 'POST'],
    ['/v1/sessions:batchCreate', 'POST'],
    ['/v1/sessions/a', 'PATCH, PUT'],
    // Written while they are read: nobody has them read for nothing.
    ['/v1/revocations/a/report', 'GET'],
    ['/v1/revocations/a/progress', 'GET'],
    ['/v1/stream', 'GET'],
    ['/v1/stream/snapshot', 'GET'],
    ['/healthz', 'GET, HEAD'],
    ['/openapi.json', 'GET, HEAD'],
  ])('answers 405 code 12 with Allow to a wrong method on %s', async (url, allow) => {
    const allowed = allow.split(', ')
    for (const method of METHODS.filter((one) => one !== 'CONNECT' && !allowed.includes(one))) {
      const answer = await call(method, url, { 'content-type': 'no such type' })
      expect([method, answer.statusCode, answer.headers['allow']]).toEqual([method, 405, allow])
      if (method !== 'HEAD') expect(answer.body).toBe('{"code":12,"message":"Method Not Allowed"}')
    }
  })

  it('takes DELETE of the path without an id for a wrong method, and with an empty one for a bad id', async () => {
    expect((await call('DELETE', '/v2/sessions')).statusCode).toBe(405)
    expect((await call('DELETE', '/v2/sessions/')).json()).toMatchObject({ code: 3 })
    expect((await call('DELETE', '/v2/sessions/')).statusCode).toBe(400)
  })
})

describe('headers', () => {
  it('lets nothing be cached, whatever the answer', async () => {
    await seedSessions(api.database.sql, [{ id: 'cached', issuer: api.issuer.url }])
    const answers = await Promise.all([call('DELETE', '/v2/sessions/cached'), call('DELETE', '/v2/sessions/'), call('PUT', '/v2/sessions/a'), call('GET', '/v1/receivers'), call('GET', '/v1/none'), call('DELETE', '/v2/sessions/%zz'), call('GET', '/v2/sessions/a', { authorization: '' })])
    for (const { headers } of answers) expect(headers['cache-control']).toBe('no-store')
  })

  it('returns the request id it was given, and one of its own for none or a bad one', async () => {
    expect((await call('GET', '/v1/none', { 'x-request-id': 'Trace-1_2.3' })).headers['x-request-id']).toBe('Trace-1_2.3')
    const own = new Set<unknown>()
    for (const given of ['', 'a b', 'x'.repeat(129), 'a"b', 'ä']) own.add((await call('GET', '/v1/none', { 'x-request-id': given })).headers['x-request-id'])
    expect(own.size).toBe(5)
    for (const id of own) expect(id).toMatch(/^[a-z0-9-]{8,40}$/)
  })

  it('believes X-Forwarded-For from a trusted proxy alone', async () => {
    const refused = (from: string, forwarded: string) => call('GET', '/v1/receivers', { authorization: 'Bearer no', 'x-forwarded-for': forwarded }, from)
    // One refused token a minute and address: the second of an address is told to wait.
    expect((await refused('10.1.1.1', '203.0.113.1')).statusCode).toBe(401)
    expect((await refused('10.1.1.1', '203.0.113.2')).statusCode).toBe(401)
    expect((await refused('10.1.1.1', '203.0.113.1')).statusCode).toBe(429)
    expect((await refused('198.51.100.7', '203.0.113.3')).statusCode).toBe(401)
    expect((await refused('198.51.100.7', '203.0.113.4')).statusCode).toBe(429)
  })
})

describe('bodies of JSON routes', () => {
  const put = (payload: string | Buffer, type = 'application/json') =>
    api.app.inject({ method: 'PUT', url: '/v1/receivers/r', headers: { authorization: admin, 'content-type': type }, payload })

  it.each([
    ['a depth bomb', '{"a":'.repeat(10_000)],
    ['__proto__', '{"__proto__":{"x":1}}'],
    ['a name twice', '{"url":"https://a.example","url":"https://b.example"}'],
    ['broken JSON', '{"url"'],
    ['invalid UTF-8', Buffer.from([0x7b, 0xff, 0x7d])],
    ['nothing', ''],
    ['an array', '[]'],
  ])('answers 400 code 3 to %s', async (_, payload) => {
    const answer = await put(payload)
    expect([answer.statusCode, answer.json().code]).toEqual([400, 3])
  })

  it.each(['', 'null'])('says that a body is missing: %j', async (payload) => {
    expect((await put(payload)).json()).toEqual({ code: 3, message: 'Body is missing' })
  })

  it('answers 413 to more than 64 kB, and 415 to a content type that is none', async () => {
    expect((await put(`{"x":"${'x'.repeat(70_000)}"}`)).json()).toEqual({ code: 3, message: 'Request body too large' })
    const unreadable = await put('{}', ';;;')
    expect([unreadable.statusCode, unreadable.json().code]).toEqual([415, 3])
  })
})

describe('health', () => {
  const readiness = async () => {
    const answer = await api.app.inject({ url: '/readyz' })
    return [answer.statusCode, answer.json()]
  }

  it('tells on /healthz that the process lives', async () => {
    const answer = await api.app.inject({ url: '/healthz' })
    expect([answer.statusCode, answer.json()]).toEqual([200, { alive: true }])
  })

  it('is ready with the queue away, and not with Postgres away, unanswered or while it stops', async () => {
    // The probe is remembered for a moment, so each state is waited for.
    state = { postgres: 'ok', queue: 'away', draining: false }
    await expect.poll(readiness).toEqual([200, { ready: true, ...state }])
    state = { postgres: 'away', queue: 'ok', draining: false }
    await expect.poll(readiness).toEqual([503, { ready: false, ...state }])
    state = { postgres: 'ok', queue: 'ok', draining: true }
    await expect.poll(readiness).toEqual([503, { ready: false, ...state }])
    state = 'throws'
    await expect.poll(readiness).toMatchObject([503, { ready: false, postgres: 'away' }])
  })
})

describe('the operations port', () => {
  it('serves metrics and health', async () => {
    const { registry, log, metrics } = createTelemetry({ level: 'silent' })
    metrics.curfew_waiting.set(7)
    const ops = buildOpsServer({ registry, log, ready: async () => ({ postgres: 'ok', queue: 'ok', draining: false }) })
    expect((await ops.inject({ url: '/metrics' })).body).toContain('curfew_waiting 7')
    expect((await ops.inject({ url: '/readyz' })).json()).toMatchObject({ ready: true })
    expect((await ops.inject({ url: '/healthz' })).statusCode).toBe(200)
    expect((await ops.inject({ url: '/v2/sessions/a', method: 'DELETE' })).body).toBe('{"code":5,"message":"Not Found"}')
    await ops.close()
  })

  it('counts answers by route pattern and never by what was asked for', async () => {
    await call('DELETE', '/v2/sessions/a-very-particular-id')
    await call('GET', '/nowhere-at-all')
    const text = await api.metrics()
    expect(text).toContain('curfew_http_requests_total{route="/v2/sessions/:sessionId",method="DELETE",status="404"}')
    expect(text).toContain('curfew_http_requests_total{route="none",method="*",status="404"}')
    expect(text).not.toMatch(/particular|nowhere/)
  })
})

describe('the OpenAPI document', () => {
  it('describes every route, with all it may answer', async () => {
    const document = (await api.app.inject({ url: '/openapi.json' })).json()
    expect(document.openapi).toMatch(/^3\.1/)
    const described = Object.entries<Record<string, { responses: Record<string, unknown>; security?: unknown[] }>>(document.paths)
      .flatMap(([path, methods]) => Object.entries(methods).map(([method, operation]) => ({ name: `${method.toUpperCase()} ${path}`, operation })))
    const registered = routes.flatMap(({ url, methods }) => methods.filter((method) => method !== 'HEAD').map((method) => `${method} ${toPath(url)}`))
    expect(described.map(({ name }) => name).sort()).toEqual(registered.filter((name) => !name.includes('/docs')).sort())
    for (const { name, operation } of described) {
      const statuses = Object.keys(operation.responses)
      if (operation.security?.length === 0) continue
      expect(statuses, name).toEqual(expect.arrayContaining(['400', '401', '429', '500', '503']))
      expect(statuses.some((status) => status.startsWith('2')), name).toBe(true)
    }
    const end = document.paths['/v2/sessions/{sessionId}'].delete
    expect(Object.keys(end.responses)).toEqual(['200', '202', '400', '401', '403', '404', '413', '429', '500', '503', '504'])
    expect(end.requestBody.required).toBe(false)
    expect(end.responses['404'].content['application/json'].example).toMatchObject({ code: 5 })
  })

  it('is public, and so is the page that shows it', async () => {
    expect((await api.app.inject({ url: '/openapi.json' })).statusCode).toBe(200)
    const page = await api.app.inject({ url: '/docs/' })
    expect([page.statusCode, page.headers['content-type']]).toEqual([200, 'text/html; charset=utf-8'])
    expect(page.headers['content-security-policy']).toContain("frame-ancestors 'none'")
    expect((await api.app.inject({ url: '/docs/static/swagger-initializer.js' })).body).toContain('/openapi.json')
  })
})

const toPath = (url: string): string => url.replace(/\(.*?\)/g, '').replaceAll('::', '\0').replace(/:(\w+)/g, '{$1}').replaceAll('\0', ':')

