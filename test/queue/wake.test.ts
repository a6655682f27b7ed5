import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { redisMissing } from '../harness/redis.ts'
import { createRig, openIntruder, prepareGround } from './rig.ts'
import type { Ground, Kind, Rig } from './rig.ts'

describe.each<{ kind: Kind }>([{ kind: 'redis' }, { kind: 'postgres' }])('a wake-up over $kind', ({ kind }) => {
  describe.skipIf(kind === 'redis' && redisMissing)('with a store', () => {
    let ground: Ground
    let rig: Rig
    beforeAll(async () => { ground = await prepareGround(kind) })
    afterAll(() => ground.close())
    afterEach(async () => {
      await rig.stop()
      await ground.clear()
    })

    it('reaches the handler with its id', async () => {
      const seen: string[] = []
      rig = await createRig(ground, { handlers: { deliver: async (id) => void seen.push(id), route: async () => void seen.push('route'), bulk: async (id) => void seen.push(`bulk ${id}`) } })
      rig.producer.wake('deliver', 'receiver:1')
      rig.producer.wake('deliver', '42')
      rig.producer.wake('route', 'all')
      rig.producer.wake('bulk', '0190-a')
      await expect.poll(() => [...seen].sort(), { timeout: 10_000 }).toEqual(['42', 'bulk 0190-a', 'receiver:1', 'route'])
    })

    it('is one with those of the same id that wait', async () => {
      let runs = 0
      rig = await createRig(ground, { handlers: { deliver: async () => void (runs += 1) } })
      await rig.stopWorkers()
      const intruder = openIntruder(ground, 'deliver')
      for (let time = 0; time < 50; time += 1) rig.producer.wake('deliver', 'r1')
      await expect.poll(() => intruder.queue.getWaitingCount()).toBe(1)
      for (let time = 0; time < 50; time += 1) rig.producer.wake('deliver', 'r1')
      rig.producer.wake('deliver', 'r2')
      await expect.poll(() => intruder.queue.getWaitingCount()).toBe(2)
      await rig.startWorkers()
      await expect.poll(() => intruder.queue.getJobCounts('waiting', 'active'), { timeout: 10_000 }).toEqual({ waiting: 0, active: 0 })
      expect(runs).toBe(2)
      await intruder.close()
    })

    it('is not lost while its handler runs: the handler runs once more, after it', async () => {
      let runs = 0
      const running = new Map<string, number>()
      let most = 0
      let release: () => void = () => undefined
      const held = new Promise<void>((resolve) => { release = resolve })
      rig = await createRig(ground, {
        handlers: {
          deliver: async (id) => {
            runs += 1
            running.set(id, (running.get(id) ?? 0) + 1)
            most = Math.max(most, running.get(id) ?? 0)
            if (runs === 1) await held
            running.set(id, (running.get(id) ?? 0) - 1)
          },
        },
      })
      rig.producer.wake('deliver', 'r1')
      await expect.poll(() => runs, { timeout: 10_000 }).toBe(1)
      const intruder = openIntruder(ground, 'deliver')
      for (let time = 0; time < 20; time += 1) rig.producer.wake('deliver', 'r1')
      rig.producer.wake('deliver', 'r2')
      // Another receiver's is not held up.
      await expect.poll(() => runs, { timeout: 10_000 }).toBe(2)
      release()
      await expect.poll(() => runs, { timeout: 10_000 }).toBeGreaterThanOrEqual(3)
      await expect.poll(() => intruder.queue.getJobCounts('waiting', 'active', 'completed')).toEqual({ waiting: 0, active: 0, completed: 0 })
      // Once more, and again where the last of those wake-ups was added only after that run.
      expect(runs).toBeLessThanOrEqual(4)
      const before = runs
      rig.producer.wake('deliver', 'r1')
      await expect.poll(() => runs, { timeout: 10_000 }).toBeGreaterThan(before)
      expect(most).toBe(1)
      await intruder.close()
    })

    it('can be given again after its handler failed', async () => {
      let runs = 0
      rig = await createRig(ground, {
        handlers: {
          route: async () => {
            runs += 1
            if (runs === 1) throw new Error('not today')
          },
        },
      })
      rig.producer.wake('route', 'all')
      await expect.poll(() => runs, { timeout: 10_000 }).toBe(1)
      const intruder = openIntruder(ground, 'route')
      await expect.poll(() => intruder.queue.getFailedCount()).toBe(1)
      const [failed] = await intruder.queue.getFailed()
      expect(failed?.failedReason).toBe('failed')
      rig.producer.wake('route', 'all')
      await expect.poll(() => runs).toBe(2)
      await intruder.close()
    })

    it('never throws and never waits, also when nothing is there to take it', async () => {
      rig = await createRig(ground)
      await rig.producer.stop()
      expect(rig.producer.wake('route', 'all')).toBeUndefined()
    })
  })
})
