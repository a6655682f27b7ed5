import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { settingsFor, startProcess } from '../harness/processes.ts'
import type { ServiceProcess } from '../harness/processes.ts'
import { answer, startReceiver } from '../harness/receiver.ts'
import type { TestReceiver } from '../harness/receiver.ts'
import { ISSUER } from '../harness/seed.ts'
import { openGround } from './ground.ts'
import type { Ground } from './ground.ts'

const CAP = 3

describe('two worker processes and one receiver', () => {
  let ground: Ground
  let receiver: TestReceiver
  let workers: ServiceProcess[] = []
  beforeAll(async () => {
    ground = await openGround()
    receiver = await startReceiver()
    receiver.always(answer(200, { afterMs: 15 }))
    const settings = settingsFor({ databaseUrl: ground.database.url, redisUrl: null, issuers: [{ issuer: ISSUER, audience: 'curfew' }] })
    workers = await Promise.all([1, 2].map(() => startProcess({ ...settings, ROLES: 'worker' })))
  })
  afterAll(async () => {
    await Promise.all(workers.map((worker) => worker.kill()))
    await receiver.close()
    await ground.close()
  })

  it('G7: its concurrency cap holds across processes, and each session is told once', async () => {
    await ground.put('shared', { url: receiver.url, maxConcurrency: CAP })
    for (let round = 0; round < 4; round += 1) await ground.endSessions(`round-${round}`, 60)
    // Both look for due receivers every second, and find this one due all the while.
    await expect.poll(() => ground.states('shared'), { timeout: 25_000 }).toEqual({ acknowledged: 240 })
    expect(receiver.inFlight.most).toBe(CAP)
    expect(receiver.requests).toHaveLength(240)
  })

  it('G5: goes on where the one that drains is killed: the other takes over, and what was recorded is not told again', async () => {
    await ground.endSessions('killed', 200)
    const told = receiver.requests.length
    await expect.poll(() => receiver.requests.length, { timeout: 10_000 }).toBeGreaterThan(told + 30)
    expect((await ground.sql.query('SELECT drained_by IS NOT NULL AS held FROM receivers')).rows).toEqual([{ held: true }])
    await workers.pop()?.kill()
    // Whichever of the two it was: a lease of the dead is over.
    await ground.sql.query('UPDATE receivers SET drained_until = now()')
    await expect.poll(() => ground.states('shared'), { timeout: 25_000 }).toEqual({ acknowledged: 440 })
    // Told again at most: what was in flight or not yet written.
    expect(receiver.requests.length - told).toBeLessThanOrEqual(200 + 100 + CAP)
  })
})
