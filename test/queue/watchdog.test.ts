import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createQueueBackend } from '../../src/queue/backend.ts'
import { createWatchdog } from '../../src/queue/watchdog.ts'
import { createTelemetry } from '../../src/telemetry.ts'
import { redisMissing } from '../harness/redis.ts'
import { openIntruder, prepareGround } from './rig.ts'
import type { Ground, Kind } from './rig.ts'

describe.each<{ kind: Kind }>([{ kind: 'redis' }, { kind: 'postgres' }])('a worker over $kind', ({ kind }) => {
  describe.skipIf(kind === 'redis' && redisMissing)('that begins nothing', () => {
    let ground: Ground
    beforeAll(async () => { ground = await prepareGround(kind) })
    afterAll(() => ground.close())

    it('is found stuck when jobs wait, and left alone when none do or when it is busy', async () => {
      const { log } = createTelemetry({ level: 'silent' })
      const backend = createQueueBackend({ redisUrl: ground.redis?.url ?? null, databaseUrl: ground.database.url, log })
      const { it: worker, cut } = backend.openWorker('deliver', async () => null)
      const stuck: string[] = []
      let looks = 0
      const watchdog = createWatchdog({
        workers: () => { looks += 1; return [{ lane: 'deliver', worker }] },
        onStuck: (lane) => stuck.push(lane),
        lookEveryMs: 30,
        idleMs: 50,
      })
      watchdog.start()
      await expect.poll(() => looks).toBeGreaterThan(6)
      expect(stuck).toEqual([])

      let finish: () => void = () => undefined
      const busy = watchdog.during('deliver', () => new Promise<void>((resolve) => { finish = resolve }))
      const intruder = openIntruder(ground, 'deliver')
      await intruder.queue.add('wake', { v: 1, id: 'r1' })
      looks = 0
      await expect.poll(() => looks).toBeGreaterThan(6)
      expect(stuck).toEqual([])

      finish()
      await busy
      await expect.poll(() => stuck, { timeout: 5_000 }).toEqual(['deliver'])
      watchdog.stop()
      await worker.close()
      await intruder.close()
      cut()
    })
  })
})
