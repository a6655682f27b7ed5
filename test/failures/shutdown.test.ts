/** SIGTERM while there is work. Fault F54. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import type { ServiceProcess } from '../harness/processes.ts'
import { redisMissing } from '../harness/redis.ts'
import { hang, startReceiver } from '../harness/receiver.ts'
import { SHUTDOWN_TIMEOUT_MS, startCluster, stopInTime } from './cluster.ts'
import type { Answer, Cluster } from './cluster.ts'
import { startLoad } from './load.ts'

describe.skipIf(redisMissing)('SIGTERM', () => {
  let cluster: Cluster
  let api: ServiceProcess
  let other: ServiceProcess
  let worker: ServiceProcess
  beforeAll(async () => {
    cluster = await startCluster({ settings: { SHUTDOWN_TIMEOUT: String(SHUTDOWN_TIMEOUT_MS) } })
  })
  beforeEach(async () => {
    ;[api, other, worker] = await Promise.all([cluster.start('api'), cluster.start('api'), cluster.start('worker')])
    await Promise.all([cluster.untilQueued(api), cluster.untilQueued(other)])
  })
  afterEach(() => Promise.all([api, other, worker].map((process) => process.kill())))
  afterAll(() => cluster.stop())

  const endAll = async (process: ServiceProcess, ids: readonly string[]): Promise<Map<string, Answer>> =>
    new Map(await Promise.all(ids.map(async (id) => [id, await cluster.end(process, id)] as const)))

  it('answers every request that the API holds, takes no new connection, and ends with code 0', async () => {
    const ids = await cluster.live(20)
    const lock = await cluster.database.sql.connect()
    await lock.query('BEGIN')
    await lock.query('SELECT FROM sessions FOR UPDATE')
    const answers = endAll(api, ids)
    await vi.waitFor(async () => expect(await cluster.metric(api, 'curfew_waiting')).toBe(ids.length), { timeout: 5_000, interval: 20 })
    const stopped = stopInTime(api)
    await vi.waitFor(() => expect(api.lines.some((line) => line.includes('service.stopping'))).toBe(true), { timeout: 10_000, interval: 10 })
    await vi.waitFor(() => expect(fetch(`${api.apiUrl}/healthz`, { headers: { connection: 'close' } })).rejects.toThrow(), { timeout: 10_000, interval: 20 })
    await lock.query('COMMIT')
    lock.release()
    await cluster.expectTruth(await answers)
    expect(await stopped).toBe(0)
    await cluster.expectTruth(await endAll(other, ids))
  })

  it('G1, G4: of the API under load: an answer is true, and whoever got none learns the truth from another process', async () => {
    const ids = await cluster.live(400)
    const load = startLoad<Answer | null>({ ids, everyMs: 10, ask: (id) => cluster.end(api, id).catch(() => null) })
    await load.untilAnswered(60)
    expect(await stopInTime(api)).toBe(0)
    const answers = await load.stop()
    const good = new Map<string, Answer>()
    for (const [id, answer] of answers) if (answer !== null) good.set(id, answer)
    expect(good.size).toBeGreaterThanOrEqual(60)
    await cluster.expectTruth(good)
    const again = await endAll(other, [...answers.keys()])
    await cluster.expectTruth(again)
    for (const [id, { body }] of good) expect(again.get(id)?.body).toEqual(body)
  })

  it('G4: of the worker under load: no request fails, and it ends with code 0', async () => {
    const ids = await cluster.live(400)
    const load = startLoad({ ids, everyMs: 20, ask: (id) => cluster.end(api, id) })
    await load.untilAnswered(40)
    expect(await stopInTime(worker)).toBe(0)
    await load.untilAnswered(20)
    worker = await cluster.start('worker')
    await cluster.untilQueued(api)
    await cluster.expectTruth(await load.stop())
    await cluster.untilSettled()
  })

  it('of a worker that tells a hanging receiver: ends in time, and the delivery is still to be made', async () => {
    const receiver = await startReceiver()
    receiver.always(hang)
    await cluster.putReceiver(api, 'app', receiver.url)
    const [id = ''] = await cluster.live(1, { clients: [{ clientId: 'app' }] })
    await cluster.end(api, id)
    await vi.waitFor(() => expect(receiver.requests).toHaveLength(1), { timeout: 10_000 })
    expect(await stopInTime(worker)).toBe(0)
    const { rows } = await cluster.database.sql.query('SELECT state::text FROM deliveries')
    expect(rows).toEqual([{ state: 'pending' }])
    await receiver.close()
  })
})
