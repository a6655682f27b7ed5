import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { settingsFor, startProcess } from '../harness/processes.ts'
import type { ServiceProcess } from '../harness/processes.ts'
import { startReceiver } from '../harness/receiver.ts'
import type { TestReceiver } from '../harness/receiver.ts'
import { ISSUER } from '../harness/seed.ts'
import { openGround } from './ground.ts'
import type { Ground } from './ground.ts'

describe('a worker killed while it delivers', () => {
  let ground: Ground
  let receiver: TestReceiver
  const workers: ServiceProcess[] = []
  beforeAll(async () => {
    ground = await openGround()
    receiver = await startReceiver()
  })
  afterAll(async () => {
    await Promise.all(workers.map((worker) => worker.kill()))
    await receiver.close()
    await ground.close()
  })

  const startWorker = async (): Promise<ServiceProcess> => {
    const issuers = [{ issuer: ISSUER, audience: 'curfew' }]
    const worker = await startProcess({ ...settingsFor({ databaseUrl: ground.database.url, redisUrl: null, issuers }), ROLES: 'worker' })
    workers.push(worker)
    return worker
  }

  it('G5: between sending and recording: it is told again once the lease has run out, and recorded once', async () => {
    await ground.put('crash', { url: receiver.url })
    const first = await startWorker()
    const killed = new Promise<void>((resolve) => {
      receiver.script((response) => {
        void first.kill().then(() => {
          response.writeHead(200).end()
          resolve()
        })
      })
    })
    await ground.endSessions('crash', 1)
    await killed
    expect(receiver.requests).toHaveLength(1)
    expect(await ground.deliveries('crash')).toMatchObject([{ state: 'pending', attempts: 0 }])
    const { rows } = await ground.sql.query('SELECT drained_until > now() AS held FROM receivers')
    expect(rows).toEqual([{ held: true }])

    await startWorker()
    // The lease is the dead worker's until its time is over, which is brought forward here.
    await ground.sql.query('UPDATE receivers SET drained_until = now()')
    await expect.poll(() => ground.deliveries('crash'), { timeout: 10_000 }).toMatchObject([{ state: 'acknowledged', attempts: 1 }])
    expect(receiver.requests).toHaveLength(2)
    expect(new Set(receiver.tokens()).size).toBe(2)
  })
})
