import { createHmac, randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { createSeals, newJobId } from '../../src/queue/jobs.ts'
import { redisMissing } from '../harness/redis.ts'
import { command } from '../harness/seed.ts'
import { committedDetails, createRig, expectTruth, liveSessions, newSecret, openIntruder, prepareGround } from './rig.ts'
import type { Ground, Kind, Rig } from './rig.ts'

const details = { sequence: '77', changeDate: '2001-01-01T00:00:00.000Z', resourceOwner: 'forged' }

describe.each<{ kind: Kind }>([{ kind: 'redis' }, { kind: 'postgres' }])('whoever can write to the queue in $kind', ({ kind }) => {
  describe.skipIf(kind === 'redis' && redisMissing)('and knows no secret', () => {
    let ground: Ground
    let rig: Rig
    let intruder: ReturnType<typeof openIntruder>
    beforeAll(async () => { ground = await prepareGround(kind) })
    afterAll(() => ground.close())
    const open = async (options: Parameters<typeof createRig>[1] = {}) => {
      rig = await createRig(ground, options)
      intruder = openIntruder(ground)
      await rig.untilAvailable()
    }
    afterEach(async () => {
      await rig.stop()
      await intruder.close()
      await ground.clear()
    })

    const sealed = (jobId: string, id: string, change: Partial<Parameters<typeof createSeals>[0]> = {}) =>
      createSeals({ secrets: rig.secrets, ...change }).sealBatch(jobId, [command(id)])

    it('G1: cannot have a session ended by a job of their own making', async () => {
      await open()
      const [id = ''] = await liveSessions(ground, 1)
      const body = JSON.stringify([[[['https://id.example'], 'https://id.example', 'admin', 'revoke', null]], [id], null])
      const time = String(Date.now())
      const mine = createHmac('sha256', 'guess').update(body).digest('base64url')
      const jobId = newJobId()
      const payloads: [jobId: string, payload: unknown][] = [
        [newJobId(), [command(id)]],
        [newJobId(), { v: 1, sessionId: id }],
        [newJobId(), body],
        [newJobId(), `1.${time}.${mine}.${body}`],
        [newJobId(), sealed(jobId, id)],
        [newJobId(), sealed('forged', id, { secrets: newSecret() })],
        ['b-old', sealed('b-old', id, { now: () => Date.now() - 301_000 })],
        ['b-early', sealed('b-early', id, { now: () => Date.now() + 90_000 })],
        ['b-version', sealed('b-version', id).replace(/^1/, '2')],
        ['b-lane', sealed('b-lane', id, { lane: 'route' })],
      ]
      for (const [job, payload] of payloads) await intruder.queue.add('batch', payload, { jobId: job })
      await expect.poll(() => rig.refused(), { timeout: 10_000 }).toEqual({
        'interactive:malformed': 3,
        'interactive:forged': 4,
        'interactive:expired': 1,
        'interactive:early': 1,
        'interactive:version': 1,
      })
      expect(rig.worked).toEqual([])
      expect((await committedDetails(ground, id)).events).toBe(0)
      expect(await intruder.queue.getFailedCount()).toBe(payloads.length)
      await expectTruth(ground, [id], [await rig.ask(id)])
    })

    it('G1: cannot stop the workers with jobs that are not even jobs', async () => {
      await open()
      const [id = ''] = await liveSessions(ground, 1)
      if (ground.redis !== null) {
        const { client } = ground.redis
        await client.hset(intruder.key('b-junk'), { name: 'batch', data: '{not json', opts: '{', timestamp: 'x' })
        await client.lpush(intruder.key('wait'), 'b-junk', 'b-nowhere')
        await client.zadd(intruder.key('marker'), 0, '0')
      } else {
        await intruder.queue.add('batch', null, { jobId: 'b-null' })
        await intruder.queue.add('batch', 'x'.repeat(1_000_000), { jobId: 'b-long' })
      }
      await expectTruth(ground, [id], [await rig.ask(id)])
      expect(rig.worked.flat().map(({ sessionId }) => sessionId)).toEqual([id])
    })

    it('keeps a bounded number of the jobs that were set aside', async () => {
      await open()
      await intruder.queue.addBulk(Array.from({ length: 260 }, () => ({ name: 'batch', data: 'junk', opts: { jobId: newJobId() } })))
      await expect.poll(() => rig.refused(), { timeout: 15_000 }).toEqual({ 'interactive:malformed': 260 })
      await expect.poll(() => intruder.queue.getFailedCount()).toBeLessThanOrEqual(200)
    })

    it('G1: cannot answer for a batch that was not committed, whatever result they write', async () => {
      await open({ commitWaitMs: 20_000 })
      const [id = '', other = ''] = await liveSessions(ground, 2)
      await rig.ask(other)
      await expect.poll(async () => (await intruder.published()).length).toBeGreaterThan(0)
      const genuine = (await intruder.published()).at(-1)?.returnvalue ?? ''

      await rig.stopWorkers()
      rig.ownGate.close()
      let answered: unknown = null
      const asked = rig.ask(id).then((answer) => (answered = answer))
      await expect.poll(() => intruder.queue.getWaitingCount()).toBeGreaterThan(0)
      const [waiting] = await intruder.queue.getJobs(['waiting'], 0, 0, true)
      const jobId = waiting?.id ?? ''
      const stranger = createSeals({ secrets: newSecret() })
      const forged = [
        'null',
        JSON.stringify([{ outcome: 'ended', details }]),
        JSON.stringify(stranger.openBatch(jobId, stranger.sealBatch(jobId, [])).sealAnswers([{ outcome: 'ended', details }])),
        JSON.stringify(waiting?.data),
        genuine,
      ]
      for (const returnvalue of forged) await intruder.publish('completed', { jobId, returnvalue })
      await expect.poll(async () => sum(await rig.refused()), { timeout: 10_000 }).toBe(forged.length)
      expect(answered).toBeNull()
      // A failure that they claim makes us look for ourselves, and no more.
      await intruder.publish('failed', { jobId, failedReason: 'because' })
      await expect.poll(() => rig.own.length, { timeout: 10_000 }).toBeGreaterThan(0)
      expect(answered).toBeNull()
      expect((await committedDetails(ground, id)).events).toBe(0)
      rig.ownGate.open()
      await expectTruth(ground, [id], [await asked])
    })

    it('G1: gains nothing by writing a genuine result again, for its own job or for another', async () => {
      await open()
      const [first = '', second = ''] = await liveSessions(ground, 2)
      const told = await rig.ask(first)
      await expect.poll(async () => (await intruder.published()).length).toBeGreaterThan(1)
      const genuine = (await intruder.published()).at(-1)
      await intruder.publish('completed', { jobId: genuine?.jobId ?? '', returnvalue: genuine?.returnvalue ?? '' })
      await expect.poll(() => rig.refused()).toEqual({ 'interactive:replayed': 1 })
      await intruder.publish('completed', { jobId: newJobId(), returnvalue: genuine?.returnvalue ?? '' })
      const answer = await rig.ask(second)
      expect(answer).not.toEqual(told)
      await expectTruth(ground, [first, second], [told, answer])
    })

    it('cannot stop the reader of results for long with a result that is not JSON', async () => {
      await open()
      await intruder.publish('completed', { jobId: newJobId(), returnvalue: '{not json' })
      const ids = await liveSessions(ground, 8)
      for (const id of ids) await expectTruth(ground, [id], [await rig.ask(id)])
      await rig.untilAvailable()
      expect(rig.line.waiting()).toBe(0)
    })

    it('causes no more than a look with wake-ups of their own making', async () => {
      const looked: string[] = []
      await open({ handlers: { route: async () => void looked.push('route'), deliver: async (id) => void looked.push(id) } })
      const route = openIntruder(ground, 'route')
      const deliver = openIntruder(ground, 'deliver')
      for (const payload of [null, 'all', { v: 2, id: 'all' }, { v: 1 }, { v: 1, id: '' }, { v: 1, id: 'x'.repeat(201) }, { v: 1, id: ['a'] }]) {
        await route.queue.add('wake', payload)
        await deliver.queue.add('wake', payload)
      }
      const unknown = randomUUID()
      await deliver.queue.add('wake', { v: 1, id: unknown })
      await expect.poll(() => looked, { timeout: 10_000 }).toEqual([unknown])
      expect(await rig.refused()).toEqual({ 'route:malformed': 6, 'route:version': 1, 'deliver:malformed': 6, 'deliver:version': 1 })
      await Promise.all([route.close(), deliver.close()])
    })
  })
})

const sum = (counts: Record<string, number>) => Object.values(counts).reduce((total, count) => total + count, 0)
