import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createUpkeep } from '../../src/upkeep/upkeep.ts'
import { startReceiver } from '../harness/receiver.ts'
import type { TestReceiver } from '../harness/receiver.ts'
import { HORIZON_SECONDS, openGround } from './ground.ts'
import type { Ground } from './ground.ts'

describe('wake-ups', () => {
  let ground: Ground
  let receiver: TestReceiver
  beforeAll(async () => {
    ground = await openGround()
    receiver = await startReceiver()
    for (const id of ['a', 'b', 'c']) await ground.put(id, { url: receiver.url, clientId: id })
  })
  afterAll(async () => {
    await receiver.close()
    await ground.close()
  })

  it('G5: lost, doubled, late or of the wrong receiver, they change nothing: everybody is told everything once', async () => {
    const lanes = [ground.deliverLane(), ground.deliverLane()]
    let run = 0
    await fc.assert(fc.asyncProperty(
      // For each of some terminations: whose it is, and who is woken, how often and where.
      fc.array(fc.tuple(fc.constantFrom('a', 'b', 'c'), fc.array(fc.tuple(fc.constantFrom('a', 'b', 'c', 'unknown'), fc.nat(1)), { maxLength: 4 })), { minLength: 1, maxLength: 6 }),
      async (terminations) => {
        const told = receiver.requests.length
        const looks: Promise<void>[] = []
        run += 1
        for (const [at, [client, wakes]] of terminations.entries()) {
          await ground.endSessions(`run-${run}-${at}`, 2, client)
          for (const [id, lane] of wakes) looks.push(lanes[lane]?.deliver(id) ?? Promise.resolve())
        }
        await Promise.all(looks)
        // The queue loses all that upkeep hands it; what this process sees twice it drains by itself.
        const upkeep = createUpkeep({
          db: ground.db, route: ground.route, wakeRevocations: () => {}, wakeReceiver: () => {}, deliver: lanes[0]?.deliver ?? (async () => {}), depth: async () => [],
          enforcePending: async () => {}, enforceAgain: async () => {}, keepStream: async () => {}, takeUpRevocations: async () => {}, refreshPlans: async () => false,
          horizonSeconds: HORIZON_SECONDS, metrics: ground.telemetry.metrics, log: ground.telemetry.log,
        })
        await upkeep.tick()
        await upkeep.tick()
        await expect.poll(async () => (await ground.sql.query(`SELECT FROM deliveries WHERE state <> 'acknowledged'`)).rowCount, { timeout: 10_000 }).toBe(0)
        expect(receiver.requests.length - told).toBe(2 * terminations.length)
      },
    ), { numRuns: 12 })
  })
})
