import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { startCluster } from '../failures/cluster.ts'
import type { Cluster } from '../failures/cluster.ts'
import { startProxy } from '../failures/proxy.ts'
import { redisMissing } from '../harness/redis.ts'
import type { ServiceProcess } from '../harness/processes.ts'
import { startGuardProcess } from './guard-process.ts'
import type { GuardProcess } from './guard-process.ts'

describe.each(['redis', 'http', 'http without Redis'])('a commit in one process, guards in two others, through %s', (through) => {
  describe.skipIf(through !== 'http without Redis' && redisMissing)('', () => {
    let cluster: Cluster
    let api: ServiceProcess
    let guards: GuardProcess[]

    beforeAll(async () => {
      cluster = await startCluster(through === 'http without Redis' ? { redis: null } : {})
      await cluster.start('worker')
      api = await cluster.start('api')
      await cluster.untilQueued(api)
      const token = await cluster.issuer.token({ sub: 'resource-server', permissions: ['session.read'] })
      const source = through === 'redis' ? { redis: cluster.redis?.url } : { url: api.apiUrl, token }
      guards = await Promise.all([startGuardProcess(source), startGuardProcess(source)])
    })
    afterAll(async () => {
      await Promise.all(guards.map((guard) => guard.stop()))
      await cluster.stop()
    })

    const verdicts = async (ids: readonly string[]) =>
      Promise.all(guards.map(async (guard) => (await guard.ask(ids.map((sessionId) => ({ issuer: cluster.issuer.url, sessionId })))).verdicts))

    it('both refuse what was ended, soon after the 200, and nothing else', async () => {
      const [first = '', second = '', alive = ''] = await cluster.live(3)
      expect(await verdicts([first, second, alive])).toEqual([['active', 'active', 'active'], ['active', 'active', 'active']])
      for (const id of [first, second]) {
        expect((await cluster.end(api, id)).status).toBe(200)
        const ended = performance.now()
        await vi.waitFor(async () => expect(await verdicts([id])).toEqual([['terminated'], ['terminated']]), { timeout: 10_000, interval: 1 })
        process.stdout.write(`refused in both processes ${(performance.now() - ended).toFixed(0)} ms after the answer\n`)
      }
      expect(await verdicts([alive])).toEqual([['active'], ['active']])
    })

    it('guards started in the middle of a flood miss nothing', async () => {
      const ids = await cluster.live(400)
      const token = await cluster.issuer.token({ sub: 'resource-server', permissions: ['session.read'] })
      const source = through === 'redis' ? { redis: cluster.redis?.url } : { url: api.apiUrl, token }
      let ended = 0
      const flood = Promise.all(Array.from({ length: 8 }, async (_, lane) => {
        for (let at = lane; at < ids.length; at += 8) {
          expect((await cluster.end(api, ids[at] ?? '')).status).toBe(200)
          ended += 1
        }
      }))
      await vi.waitUntil(() => ended > 20, { timeout: 10_000, interval: 1 })
      const late = await Promise.all([startGuardProcess(source), startGuardProcess(source)])
      expect(ended).toBeLessThan(ids.length)
      await flood
      for (const guard of late) {
        const asked = ids.map((sessionId) => ({ issuer: cluster.issuer.url, sessionId }))
        await vi.waitFor(async () => expect((await guard.ask(asked)).verdicts.filter((verdict) => verdict !== 'terminated')).toEqual([]), { timeout: 10_000, interval: 20 })
        await guard.stop()
      }
    }, 60_000)

    it('a guard started later knows it from the snapshot', async () => {
      const [id = ''] = await cluster.live(1)
      await cluster.end(api, id)
      const token = await cluster.issuer.token({ sub: 'resource-server', permissions: ['session.read'] })
      const late = await startGuardProcess(through === 'redis' ? { redis: cluster.redis?.url } : { url: api.apiUrl, token })
      await vi.waitFor(async () => expect((await late.ask([{ issuer: cluster.issuer.url, sessionId: id }])).verdicts).toEqual(['terminated']), { timeout: 10_000, interval: 5 })
      expect((await late.ask([])).staleMs).toBeLessThan(5_000)
      await late.stop()
    })
  })
})

describe('a guard whose way to the API is cut for a while', () => {
  let cluster: Cluster
  let api: ServiceProcess

  beforeAll(async () => {
    cluster = await startCluster({ redis: null })
    api = await cluster.start('api,worker')
  })
  afterAll(() => cluster.stop())

  it.each(['hold', 'reset'] as const)('grows stale, refuses as its user chose, and knows everything again when the way is back (%s)', async (mode) => {
    const proxy = await startProxy(new URL(api.apiUrl))
    const token = await cluster.issuer.token({ sub: 'resource-server', permissions: ['session.read'] })
    const guard = await startGuardProcess({ url: proxy.url, token, maxStaleMs: 3_000, onStale: 'failClosed' })
    const [before = '', during = '', alive = ''] = await cluster.live(3)
    const verdicts = async () => (await guard.ask([before, during, alive].map((sessionId) => ({ issuer: cluster.issuer.url, sessionId })))).verdicts
    await cluster.end(api, before)
    await vi.waitFor(async () => expect(await verdicts()).toEqual(['terminated', 'active', 'active']), { timeout: 10_000, interval: 20 })
    proxy.set(mode)
    await cluster.end(api, during)
    await vi.waitFor(async () => expect(await verdicts()).toEqual(['terminated', 'stale', 'stale']), { timeout: 10_000, interval: 20 })
    expect((await guard.ask([])).staleMs).toBeGreaterThan(3_000)
    proxy.set('pass')
    await vi.waitFor(async () => expect(await verdicts()).toEqual(['terminated', 'terminated', 'active']), { timeout: 20_000, interval: 20 })
    expect((await guard.ask([])).staleMs).toBeLessThan(3_000)
    await guard.stop()
    proxy.close()
  })

  /** Garbage is collected between: what ends a connection must be held by someone. */
  it('leaves a connection that has fallen silent for a new one', async () => {
    const proxy = await startProxy(new URL(api.apiUrl))
    const token = await cluster.issuer.token({ sub: 'resource-server', permissions: ['session.read'] })
    const guard = await startGuardProcess({ url: proxy.url, token }, { collects: true })
    const [before = '', during = ''] = await cluster.live(2)
    const verdicts = async () => (await guard.ask([before, during].map((sessionId) => ({ issuer: cluster.issuer.url, sessionId })))).verdicts
    await cluster.end(api, before)
    await vi.waitFor(async () => expect(await verdicts()).toEqual(['terminated', 'active']), { timeout: 10_000, interval: 20 })
    proxy.orphan()
    await cluster.end(api, during)
    await vi.waitFor(async () => expect(await verdicts()).toEqual(['terminated', 'terminated']), { timeout: 20_000, interval: 20 })
    expect(guard.said.join('\n')).toContain('Nothing was heard')
    await guard.stop()
    proxy.close()
  })

  it('is closed while a connection lasts', async () => {
    const token = await cluster.issuer.token({ sub: 'resource-server', permissions: ['session.read'] })
    const guard = await startGuardProcess({ url: api.apiUrl, token }, { collects: true })
    const [id = ''] = await cluster.live(1)
    const verdicts = async () => (await guard.ask([{ issuer: cluster.issuer.url, sessionId: id }])).verdicts
    expect(await verdicts()).toEqual(['active'])
    await cluster.end(api, id)
    await vi.waitFor(async () => expect(await verdicts()).toEqual(['terminated']), { timeout: 10_000, interval: 20 })
    await guard.stop()
  })
})
