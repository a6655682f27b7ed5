/** Someone who can write to Redis and knows no secret, against whole processes. Every way in alone: `test/queue/forgery`. */
import { createHmac } from 'node:crypto'
import { Queue } from 'bullmq'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { createSeals, newJobId } from '../../src/queue/jobs.ts'
import { KEY_PREFIX, queueName } from '../../src/queue/lanes.ts'
import type { ServiceProcess } from '../harness/processes.ts'
import { redisMissing } from '../harness/redis.ts'
import type { TestRedis } from '../harness/redis.ts'
import { command } from '../harness/seed.ts'
import { startCluster } from './cluster.ts'
import type { Cluster } from './cluster.ts'

describe.skipIf(redisMissing)('an intruder in Redis', () => {
  let cluster: Cluster
  let redis: TestRedis
  let api: ServiceProcess
  let worker: ServiceProcess
  let intruder: Queue<unknown>
  beforeAll(async () => {
    cluster = await startCluster()
    if (cluster.redis === null) throw new Error('no Redis')
    redis = cluster.redis
    ;[api, worker] = await Promise.all([cluster.start('api'), cluster.start('worker')])
    intruder = new Queue(queueName('interactive'), { connection: redis.client, prefix: KEY_PREFIX, skipMetasUpdate: true })
    await cluster.untilQueued(api)
  })
  afterAll(async () => {
    worker.signal('SIGCONT')
    await cluster.stop()
  })

  const key = (part: string) => cluster.laneKey('interactive', part)
  const jobIds = async () => [...new Set([...(await redis.client.lrange(key('wait'), 0, -1)), ...(await redis.client.lrange(key('active'), 0, -1))])]
  const refused = async () => (await cluster.metric(worker, 'curfew_jobs_refused_total')) + (await cluster.metric(api, 'curfew_jobs_refused_total'))
  const events = async () => Number((await cluster.database.sql.query<{ n: string }>('SELECT count(*) AS n FROM session_events')).rows[0]?.n)

  /** A command that waits in the queue with its genuine job, while no worker runs. */
  const waiting = async () => {
    const [id = ''] = await cluster.live(1)
    worker.signal('SIGSTOP')
    const answer = cluster.end(api, id)
    const [jobId = ''] = await vi.waitUntil(async () => {
      const ids = await jobIds()
      return ids.length > 0 ? ids : null
    }, { timeout: 1_500, interval: 2 })
    return { id, answer, jobId }
  }

  it('G1: causes no commit by jobs of their own making', async () => {
    const [id = ''] = await cluster.live(1)
    const before = { refused: await refused(), events: await events() }
    const body = JSON.stringify([[[[cluster.issuer.url], cluster.issuer.url, 'admin', 'revoke', null]], [id], null])
    const guess = createHmac('sha256', 'guess').update(body).digest('base64url')
    const otherSecret = createSeals({ secrets: { secret: Buffer.alloc(32, 1), secretPrevious: null } })
    const payloads = [
      { sessionId: id }, [command(id, { issuers: [cluster.issuer.url] })], body, `1.${Date.now()}.${guess}.${body}`,
      otherSecret.sealBatch('b-forged', [command(id, { issuers: [cluster.issuer.url] })]), null, 7,
    ]
    await intruder.add('batch', payloads[4], { jobId: 'b-forged' })
    for (const payload of payloads) await intruder.add('batch', payload, { jobId: newJobId() })
    await vi.waitFor(async () => expect(await refused()).toBe(before.refused + payloads.length + 1), { timeout: 10_000 })
    expect(await events()).toBe(before.events)
    expect(await cluster.committed([id])).toEqual(new Map())
    expect(await redis.client.zcard(key('failed'))).toBe(payloads.length + 1)
  })

  it('G1, G3: gets nothing by replaying a captured job, under its own id or another', async () => {
    const { id, answer, jobId } = await waiting()
    const data = JSON.parse(await redis.client.hget(key(jobId), 'data') ?? '""') as unknown
    worker.signal('SIGCONT')
    await cluster.expectTruth(new Map([[id, await answer]]))
    const before = { refused: await refused(), events: await events() }
    await vi.waitFor(async () => expect(await jobIds()).toEqual([]), { timeout: 10_000 })
    // Under its own id it authenticates and is run, and what it asks for has happened already.
    await intruder.add('batch', data, { jobId })
    await intruder.add('batch', data, { jobId: newJobId() })
    await vi.waitFor(async () => expect(await refused()).toBeGreaterThan(before.refused), { timeout: 10_000 })
    await vi.waitFor(async () => expect(await jobIds()).toEqual([]), { timeout: 10_000 })
    expect(await events()).toBe(before.events)
    await cluster.expectTruth(new Map([[id, await cluster.end(api, id)]]))
  })

  it('G1: causes no 200 by results of their own making; who waits is told the truth', async () => {
    await cluster.untilQueued(api)
    const { id, answer, jobId } = await waiting()
    const forged = { sequence: '77', changeDate: '2001-01-01T00:00:00.000Z', resourceOwner: 'forged' }
    const otherSecret = createSeals({ secrets: { secret: Buffer.alloc(32, 1), secretPrevious: null } })
    const sealed = otherSecret.openBatch(jobId, otherSecret.sealBatch(jobId, [command(id)])).sealAnswers([{ outcome: 'ended', details: forged }])
    for (const returnvalue of [sealed, [{ outcome: 'ended', details: forged }], { details: forged }, null, `1.${Date.now()}.${'A'.repeat(43)}.[]`]) {
      await redis.client.xadd(key('events'), '*', 'event', 'completed', 'jobId', jobId, 'returnvalue', JSON.stringify(returnvalue))
    }
    await redis.client.xadd(key('events'), '*', 'event', 'completed', 'jobId', jobId, 'returnvalue', '{not json')
    await cluster.expectTruth(new Map([[id, await answer]]))
    expect((await answer).body.details?.resourceOwner).not.toBe('forged')
    worker.signal('SIGCONT')
    await cluster.untilQueued(api)
    await cluster.expectTruth(new Map([[id, await cluster.end(api, id)]]))
  })
})
