/**
 * More than a process can hold: what is too much is refused at once and says when to come back, what was admitted is
 * answered with the truth, and afterwards everything is as before. An API and a worker process, the queue on each store;
 * and with what the API commits by itself.
 */
import { Agent, request } from 'undici'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import type { ServiceProcess } from '../harness/processes.ts'
import { redisMissing } from '../harness/redis.ts'
import { startCluster } from './cluster.ts'
import type { Cluster } from './cluster.ts'

const MAX_WAITING = 50
/** Connections of the flood: five times what the process holds, so that most of it is too much at every moment. */
const CONNECTIONS = 250
const REQUESTS = 3_000
/** Measured: 40 to 120 ms; the rest is two cores that also carry the flood, Postgres and Redis. */
const QUICK_MS = 1_000
/** What a young process may still grow by: its code compiled, its pools filled. Measured: under 1 MB. */
const MAX_GROWTH_BYTES = 32 * 1_024 * 1_024

interface Answer {
  readonly status: number
  readonly text: string
  readonly retryAfter: string | undefined
  readonly ms: number
}

/** From the first command on through the queue, or never. */
const ways = [
  { kind: 'redis', queueFrom: '1' },
  { kind: 'postgres', queueFrom: '1' },
  { kind: 'redis', queueFrom: '1000' },
] as const

describe.each(ways)('overload, queue on $kind, used from $queueFrom on', ({ kind, queueFrom }) => {
  describe.skipIf(kind === 'redis' && redisMissing)('', () => {
    let cluster: Cluster
    let api: ServiceProcess
    let agent: Agent
    beforeAll(async () => {
      agent = new Agent({ connections: CONNECTIONS, pipelining: 1 })
      cluster = await startCluster({
        ...(kind === 'redis' ? {} : { redis: null }),
        settings: { QUEUE_FROM: queueFrom, MAX_WAITING: String(MAX_WAITING), RATE_LIMIT_CALLER: '5' },
      })
      ;[api] = await Promise.all([cluster.start('api'), cluster.start('worker')])
      await cluster.untilQueued(api)
    })
    afterAll(async () => {
      await agent.close()
      await cluster.stop()
    })

    const end = async (id: string, token = cluster.token): Promise<Answer> => {
      const since = performance.now()
      const { statusCode, headers, body } = await request(`${api.apiUrl}/v2/sessions/${id}`, {
        method: 'DELETE', headers: { authorization: `Bearer ${token}` }, dispatcher: agent,
      })
      const text = await body.text()
      return { status: statusCode, text, retryAfter: headers['retry-after']?.toString(), ms: performance.now() - since }
    }
    const refusal = (code: number, status: number) =>
      expect.objectContaining({ status, retryAfter: expect.stringMatching(/^[1-9]\d*$/), text: expect.stringContaining(`{"code":${code},`) })
    const memory = (): Promise<number> => cluster.metric(api, 'process_resident_memory_bytes')

    const expectTruth = async (answers: ReadonlyMap<string, Answer>): Promise<void> => {
      const truth = await cluster.committed([...answers.keys()])
      for (const [id, { status, text }] of answers) {
        expect({ status, body: JSON.parse(text) }).toEqual({ status: 200, body: { details: truth.get(id)?.details } })
        expect(truth.get(id)?.events).toBe(1)
      }
    }

    it('holds as many as it may, refuses one more at once, and answers those it holds', async () => {
      const ids = await cluster.live(MAX_WAITING)
      const [more = ''] = await cluster.live(1)
      const lock = await cluster.database.sql.connect()
      await lock.query('BEGIN')
      await lock.query('SELECT FROM sessions WHERE id = ANY($1) FOR UPDATE', [ids])
      const held = ids.map((id) => end(id))
      await vi.waitFor(async () => expect(await cluster.metric(api, 'curfew_waiting')).toBe(MAX_WAITING), { timeout: 5_000, interval: 20 })
      const refused = await end(more)
      expect(refused).toEqual(refusal(14, 503))
      expect(refused.ms).toBeLessThan(QUICK_MS)
      expect((await cluster.committed([more])).size).toBe(0)
      await lock.query('COMMIT')
      lock.release()
      await expectTruth(new Map((await Promise.all(held)).map((answer, n) => [ids[n] ?? '', answer])))
      expect((await end(more)).status).toBe(200)
    })

    it('under a flood refuses what is too much at once, answers the rest with the truth, and is as before when it is over', async () => {
      // The first flood compiles and fills what every later one uses.
      await Promise.all((await cluster.live(REQUESTS)).map((id) => end(id)))
      const before = await memory()

      const ids = await cluster.live(REQUESTS)
      let next = 0
      const answers = new Map<string, Answer>()
      // Each connection asks again as soon as it is answered, so that a wait is the server's and not the client's.
      await Promise.all(Array.from({ length: CONNECTIONS }, async () => {
        for (let id = ids[next++]; id !== undefined; id = ids[next++]) answers.set(id, await end(id))
      }))

      const good = new Map([...answers].filter(([, { status }]) => status === 200))
      const refused = [...answers.values()].filter(({ status }) => status !== 200)
      expect(good.size).toBeGreaterThan(MAX_WAITING)
      expect(refused.length).toBeGreaterThan(CONNECTIONS - MAX_WAITING)
      for (const answer of refused) expect(answer).toEqual(refusal(14, 503))
      const slowest = refused.map(({ ms }) => ms).toSorted((a, b) => a - b)
      expect(slowest[Math.floor(slowest.length * 0.99)]).toBeLessThan(QUICK_MS)
      await expectTruth(good)
      expect(await memory() - before).toBeLessThan(MAX_GROWTH_BYTES)

      // Whoever comes back is answered, and first answers stand.
      const again = new Map<string, Answer>()
      for (const id of ids.slice(0, 60)) again.set(id, await end(id))
      await expectTruth(again)
      for (const [id, { text }] of again) if (good.has(id)) expect(text).toBe(good.get(id)?.text)
      await vi.waitFor(async () => expect(await cluster.metric(api, 'curfew_waiting')).toBe(0), { timeout: 10_000 })
      await cluster.untilQueued(api)
      await cluster.untilSettled()
    })

    it('holds a caller without the instance to its own rate, and nobody else', async () => {
      const user = await cluster.issuer.token({ sub: 'somebody' })
      const [id = ''] = await cluster.live(1)
      const answers = await Promise.all(Array.from({ length: 50 }, () => end(id, user)))
      const limited = answers.filter(({ status }) => status === 429)
      expect(limited.length).toBeGreaterThan(30)
      for (const answer of limited) expect(answer).toEqual(refusal(8, 429))
      expect(answers.filter(({ status }) => status !== 429).every(({ status }) => status === 403)).toBe(true)
      expect((await end(id)).status).toBe(200)
    })
  })
})
