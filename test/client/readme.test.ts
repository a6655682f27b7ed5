import { execFile, spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { startCluster } from '../failures/cluster.ts'
import type { Cluster } from '../failures/cluster.ts'
import { redisMissing } from '../harness/redis.ts'
import { installClient } from './installed.ts'

const run = promisify(execFile)
const project = fileURLToPath(new URL('../..', import.meta.url))

describe.skipIf(redisMissing)('the resource server of the README', () => {
  let cluster: Cluster
  let installed: Awaited<ReturnType<typeof installClient>>
  let server: ChildProcess
  let url: string

  beforeAll(async () => {
    cluster = await startCluster()
    await cluster.start('worker')
    installed = await installClient(['fastify', 'jose', 'ioredis'])
    const [, text = ''] = /<!-- example: resource-server\.js -->\n```js\n([\s\S]*?)```/.exec(readFileSync(join(project, 'README.md'), 'utf8')) ?? []
    const file = join(installed.folder, 'resource-server.mjs')
    await writeFile(file, text)
    server = spawn(process.execPath, [file], {
      env: { PATH: process.env['PATH'], ISSUER: cluster.issuer.url, JWKS_URI: cluster.issuer.jwksUri, AUDIENCE: 'curfew', CURFEW_REDIS_URL: cluster.redis?.url, PORT: '0' },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    if (server.stdout === null) throw new Error('It has no output')
    url = String((await once(createInterface({ input: server.stdout }), 'line'))[0])
  })
  afterAll(async () => {
    server.kill('SIGTERM')
    await once(server, 'exit')
    expect(server.exitCode).toBe(0)
    await installed.remove()
    await cluster.stop()
  })

  it('answers while the session lives, and 401 once it has ended, with the same token', async () => {
    const api = await cluster.start('api')
    const [id = ''] = await cluster.live(1)
    const token = await cluster.issuer.token({ sub: 'u1', sid: id })
    const ask = (bearer: string) => fetch(`${url}/orders`, { headers: { authorization: `Bearer ${bearer}` } })
    await vi.waitFor(async () => expect((await ask(token)).status).toBe(200), { timeout: 10_000, interval: 50 })
    expect(await (await ask(token)).json()).toEqual({ of: 'u1', orders: [] })
    expect((await ask('nonsense')).status).toBe(401)
    await cluster.end(api, id)
    await vi.waitFor(async () => expect((await ask(token)).status).toBe(401), { timeout: 10_000, interval: 5 })
    const refused = await ask(token)
    expect(refused.headers.get('www-authenticate')).toContain('error="invalid_token"')
    expect(await refused.json()).toEqual({ error: 'invalid_token', error_description: 'The session has ended' })
  })
})

describe('curfew/client', () => {
  it('takes no package with it where it follows HTTP, and has types of its own', async () => {
    const { folder, remove } = await installClient(['@types/node', 'undici-types'])
    await writeFile(join(folder, 'package.json'), '{"type": "module"}')
    await writeFile(join(folder, 'use.ts'), `
import { createGuard, expressGuard, fastifyGuard, questionOf } from 'curfew/client'
import type { Guard, RuleOnTheWire, Verdict } from 'curfew/client'
const guard: Guard = await createGuard({ url: 'http://127.0.0.1:9', token: async () => 't', startWithinMs: 50, onStale: 'failOpen' })
const verdict: Verdict = guard.check({ issuer: 'i', sessionId: 's', subject: null, born: new Date() })
expressGuard(guard, (request: { claims: Record<string, unknown> }) => questionOf(request.claims, 'org'))
fastifyGuard(guard, () => null)
const rule: RuleOnTheWire | null = null
console.log(verdict, rule, guard.staleMs)
await guard.close()
// @ts-${'expect'}-error it must be told where to listen
await createGuard({ maxStaleMs: 1 }).catch((error: Error) => console.log(error.message))
`)
    await run(process.execPath, [join(project, 'node_modules/typescript/bin/tsc'), '--strict', '--module', 'nodenext', '--target', 'es2023', '--types', 'node', 'use.ts'], { cwd: folder })
    const { stdout } = await run(process.execPath, ['use.js'], { cwd: folder })
    expect(stdout.trim()).toBe('active null Infinity\ncreateGuard needs redis, or url and token')
    await remove()
  })
})
