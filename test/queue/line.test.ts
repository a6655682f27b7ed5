import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { freePort } from '../harness/ports.ts'
import { redisMissing } from '../harness/redis.ts'
import { openDatabase } from '../../src/store/postgres.ts'
import { terminateSessions } from '../../src/store/terminations.ts'
import { committedDetails, createRig, expectTruth, liveSessions, newSecret, openIntruder, prepareGround } from './rig.ts'
import type { Ground, Kind, Rig } from './rig.ts'

describe.each<{ kind: Kind }>([{ kind: 'redis' }, { kind: 'postgres' }])('the line over $kind', ({ kind }) => {
  describe.skipIf(kind === 'redis' && redisMissing)('with a store', () => {
    let ground: Ground
    let rig: Rig
    beforeAll(async () => { ground = await prepareGround(kind) })
    afterAll(() => ground.close())
    afterEach(async () => {
      await rig.stop()
      await ground.clear()
    })

    const open = async (...args: Parameters<typeof createRig> extends [Ground, ...infer Rest] ? Rest : never) => {
      rig = await createRig(ground, ...args)
      await rig.untilAvailable()
    }

    it('sends at once when idle: one command, one batch, worked off by a worker', async () => {
      await open()
      const [id = ''] = await liveSessions(ground, 1)
      await expectTruth(ground, [id], [await rig.ask(id)])
      expect(rig.worked.map((batch) => batch.length)).toEqual([1])
      expect(rig.own).toEqual([])
    })

    it('commits by itself while few wait, and hands the rest of a flood to the workers', async () => {
      await open({ queueFrom: 128 })
      const [lone = '', ...ids] = await liveSessions(ground, 401)
      await expectTruth(ground, [lone], [await rig.ask(lone)])
      expect(rig.worked).toEqual([])
      await expectTruth(ground, ids, await rig.askAll(ids))
      expect(rig.own.flat().length).toBe(1 + 127)
      expect(rig.worked.flat().length).toBe(400 - 127)
    })

    it('stays with the queue until a flood has subsided, so that its tail does not go both ways', async () => {
      await open({ queueFrom: 8 })
      const [tail = '', lone = '', ...ids] = await liveSessions(ground, 12)
      rig.workerGate.close()
      const flood = ids.map((id) => rig.ask(id))
      await Promise.all(flood.slice(0, 7))
      const last = rig.ask(tail)
      rig.workerGate.open()
      await expectTruth(ground, [...ids, tail], await Promise.all([...flood, last]))
      expect(rig.worked.flat().map(({ sessionId }) => sessionId)).toContain(tail)
      await expectTruth(ground, [lone], [await rig.ask(lone)])
      expect(rig.own.flat().map(({ sessionId }) => sessionId)).toContain(lone)
    })

    it('gathers what arrives together, 500 at most', async () => {
      await open()
      const ids = await liveSessions(ground, 1_202)
      const answers = await rig.askAll(ids)
      expect(answers.every(({ outcome }) => outcome === 'ended' || outcome === 'before')).toBe(true)
      // Two are under way at once, and which of them a worker begins first is its own.
      expect(rig.worked.slice(0, 3).map((batch) => batch.length).toSorted((a, b) => b - a)).toEqual([500, 500, 202])
    })

    it('gathers what arrives while two batches travel', async () => {
      await open()
      const ids = await liveSessions(ground, 20)
      rig.workerGate.close()
      const answers = []
      for (const id of ids) {
        answers.push(rig.ask(id))
        await new Promise((resolve) => setImmediate(resolve))
      }
      rig.workerGate.open()
      await expectTruth(ground, ids, await Promise.all(answers))
      expect(rig.worked.length).toBeLessThan(10)
    })

    it('G1: answers each command with its own committed event', async () => {
      await open()
      const ids = await liveSessions(ground, 60)
      const asked = [...ids, 'never-registered', ...ids.slice(0, 5)]
      const answers = await rig.askAll(asked)
      expect(answers[60]).toEqual({ outcome: 'unknown' })
      await expectTruth(ground, ids, answers.slice(0, 60))
      await expectTruth(ground, ids.slice(0, 5), answers.slice(61))
    })

    it('G3: asking again gives the details of the first termination', async () => {
      await open()
      const [id = ''] = await liveSessions(ground, 1)
      const first = await rig.ask(id)
      expect(await rig.ask(id)).toEqual({ ...first, outcome: 'before' })
      expect((await committedDetails(ground, id)).events).toBe(1)
    })

    it('refuses more than it can hold, and takes more when there is room', async () => {
      await open({ maxWaiting: 3 })
      const ids = await liveSessions(ground, 4)
      rig.workerGate.close()
      const held = ids.slice(0, 3).map((id) => rig.ask(id))
      await expect(rig.ask(ids[3] ?? '')).rejects.toMatchObject({ kind: 'overloaded' })
      expect(rig.line.waiting()).toBe(3)
      rig.workerGate.open()
      await Promise.all(held)
      await expectTruth(ground, ids.slice(3), [await rig.ask(ids[3] ?? '')])
    })

    it('says after the wait that it is not known to be committed, and nobody waits any more', async () => {
      await open({ commitWaitMs: 300 })
      const [id = ''] = await liveSessions(ground, 1)
      rig.workerGate.close()
      rig.ownGate.close()
      await expect(rig.ask(id)).rejects.toMatchObject({ kind: 'not_committed_in_time' })
      expect(rig.line.waiting()).toBe(0)
    })

    it('asks again for what someone else holds, and answers the others at once', async () => {
      await open()
      const ids = await liveSessions(ground, 10)
      const [held = '', ...others] = ids
      const holder = await ground.database.sql.connect()
      try {
        await holder.query('BEGIN')
        await holder.query('SELECT FROM sessions WHERE id = $1 FOR UPDATE', [held])
        const late = rig.ask(held)
        await expectTruth(ground, others, await rig.askAll(others))
        expect(rig.line.waiting()).toBe(1)
        await expect.poll(() => rig.worked.filter((batch) => batch.length === 1 && batch[0]?.sessionId === held).length).toBeGreaterThan(1)
        await holder.query('COMMIT')
        await expectTruth(ground, [held], [await late])
      } finally {
        holder.release()
      }
    })

    it('commits by itself what a worker failed to commit', async () => {
      await open({ handlers: { interactive: async () => { throw new Error('the worker lost its database') } } })
      const ids = await liveSessions(ground, 3)
      await expectTruth(ground, ids, await rig.askAll(ids))
      expect(rig.own.flat()).toHaveLength(3)
    })

    it('reads what a worker committed before it failed', async () => {
      await open({
        handlers: {
          interactive: async (commands) => {
            const db = openDatabase({ url: ground.database.url, name: 'test', max: 1 })
            await terminateSessions(db, commands)
            await db.$disconnect()
            throw new Error('lost after the commit')
          },
        },
      })
      const ids = await liveSessions(ground, 3)
      await expectTruth(ground, ids, await rig.askAll(ids))
      expect(rig.own).toEqual([])
    })

    it('repeats a commit of its own whose reply was lost', async () => {
      let lost = 0
      const db = openDatabase({ url: ground.database.url, name: 'test', max: 1 })
      await open({
        handlers: { interactive: async () => { throw new Error('no worker today') } },
        commit: async (commands) => {
          const { answers } = await terminateSessions(db, commands)
          if (lost++ === 0) throw new Error('Connection terminated unexpectedly')
          return answers
        },
      })
      const [id = ''] = await liveSessions(ground, 1)
      await expectTruth(ground, [id], [await rig.ask(id)])
      expect(lost).toBe(2)
      await db.$disconnect()
    })

    it('says that nothing can be committed when no database can be reached', async () => {
      const db = openDatabase({ url: `postgresql://nobody@127.0.0.1:${await freePort()}/none`, name: 'test', max: 1 })
      await open({
        handlers: { interactive: async (commands) => [...(await terminateSessions(db, commands)).answers] },
        commit: async (commands) => (await terminateSessions(db, commands)).answers,
      })
      const [id = ''] = await liveSessions(ground, 1)
      await expect(rig.ask(id)).rejects.toMatchObject({ kind: 'unavailable' })
      await db.$disconnect()
    })

    it('goes on while all workers are dead, and back to them when a probe has come back', async () => {
      await open()
      await rig.stopWorkers()
      const ids = await liveSessions(ground, 30)
      const started = performance.now()
      await expectTruth(ground, ids, await rig.askAll(ids))
      expect(performance.now() - started).toBeLessThan(4_000)
      expect(rig.line.available()).toBe(false)
      expect(rig.worked).toEqual([])

      const more = await liveSessions(ground, 5)
      await expectTruth(ground, more, await rig.askAll(more))
      await rig.startWorkers()
      await rig.untilAvailable()
      const own = rig.own.length
      const last = await liveSessions(ground, 5)
      await expectTruth(ground, last, await rig.askAll(last))
      expect(rig.own).toHaveLength(own)
      expect(rig.worked.flat().map(({ sessionId }) => sessionId)).toEqual(expect.arrayContaining(last))
    })

    it('leaves at most one probe waiting for workers that do not come', async () => {
      await open()
      await rig.stopWorkers()
      const [id = ''] = await liveSessions(ground, 1)
      await rig.ask(id)
      const intruder = openIntruder(ground)
      const seen = new Set<string | undefined>()
      const look = async () => {
        const waiting = await intruder.queue.getJobs(['waiting'])
        // The batch that went unanswered, and one probe.
        expect(waiting.length).toBeLessThanOrEqual(2)
        for (const job of waiting) seen.add(job.id)
        return seen.size
      }
      await expect.poll(look, { timeout: 15_000 }).toBeGreaterThan(3)
      await intruder.close()
    })

    it('uses workers that know the new secret before it does', async () => {
      const former = newSecret()
      await open({ secrets: former, workerSecrets: { secret: newSecret().secret, secretPrevious: former.secret } })
      const ids = await liveSessions(ground, 3)
      await expectTruth(ground, ids, await rig.askAll(ids))
      expect(rig.own).toEqual([])
    })

    it('does without workers that know another secret', async () => {
      rig = await createRig(ground, { workerSecrets: newSecret() })
      const ids = await liveSessions(ground, 3)
      await expectTruth(ground, ids, await rig.askAll(ids))
      await expect.poll(() => rig.refused(), { timeout: 5_000 }).toMatchObject({ 'interactive:forged': expect.any(Number) })
      expect(rig.line.available()).toBe(false)
      expect(rig.worked).toEqual([])
    })

    it('keeps no finished job, and a bounded stream of events', async () => {
      await open()
      const intruder = openIntruder(ground)
      for (const id of await liveSessions(ground, 600)) await rig.ask(id)
      await expect.poll(() => intruder.queue.getJobCounts('completed', 'waiting', 'active', 'failed')).toEqual({ completed: 0, waiting: 0, active: 0, failed: 0 })
      // 600 batches make 2,400 events and more; 1,000 are kept, and trimming is approximate.
      expect(await intruder.eventsKept()).toBeLessThan(1_600)
      await intruder.close()
    })

    it('answers those who wait when it is stopped, and takes no more', async () => {
      await open()
      const ids = await liveSessions(ground, 20)
      const answers = rig.askAll(ids)
      await rig.line.stop()
      await expectTruth(ground, ids, await answers)
      await expect(rig.ask('late')).rejects.toMatchObject({ kind: 'overloaded' })
      await rig.line.stop()
    })

    it('goes on through the queue when its producer has new connections', async () => {
      await open()
      rig.producer.renew()
      const ids = await liveSessions(ground, 3)
      await expectTruth(ground, ids, await rig.askAll(ids))
      await rig.untilAvailable()
      expect(rig.own).toEqual([])
    })

    it('measures how much waits, and for how long', async () => {
      await open()
      await rig.stopWorkers()
      const [id = ''] = await liveSessions(ground, 1)
      const answered = rig.ask(id)
      await expect.poll(() => rig.producer.depth()).toEqual([
        { lane: 'interactive', waiting: 1, oldestSeconds: expect.any(Number) },
        { lane: 'bulk', waiting: 0, oldestSeconds: 0 },
        { lane: 'route', waiting: 0, oldestSeconds: 0 },
        { lane: 'deliver', waiting: 0, oldestSeconds: 0 },
      ])
      await answered
    })
  })
})
