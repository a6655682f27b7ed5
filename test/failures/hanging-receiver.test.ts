/** Receivers that hang, fail and cut, beside healthy ones; and the three clocks of what was told. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { answer, hang, reset, startReceiver } from '../harness/receiver.ts'
import type { TestReceiver } from '../harness/receiver.ts'
import type { ServiceProcess } from '../harness/processes.ts'
import { redisMissing } from '../harness/redis.ts'
import { sidsOf, startCluster } from './cluster.ts'
import type { Cluster } from './cluster.ts'

describe.skipIf(redisMissing)('receivers of one session', () => {
  let cluster: Cluster
  let api: ServiceProcess
  let worker: ServiceProcess
  const receivers = new Map<string, TestReceiver>()
  const open = async (name: string, behave?: Parameters<TestReceiver['always']>[0]) => {
    const receiver = await startReceiver()
    if (behave !== undefined) receiver.always(behave)
    receivers.set(name, receiver)
    await cluster.putReceiver(api, name, receiver.url)
    return receiver
  }
  beforeAll(async () => {
    cluster = await startCluster({ settings: { DELIVERY_CONCURRENCY: '4' } })
    ;[api, worker] = await Promise.all([cluster.start('api'), cluster.start('worker')])
    await cluster.untilQueued(api)
  })
  afterAll(async () => {
    await cluster.stop()
    await Promise.all([...receivers.values()].map((receiver) => receiver.close()))
  })

  it('G11: one DELETE leaves three clocks in the tables, and each is measured', async () => {
    await open('clocked')
    const [id = ''] = await cluster.live(1, { clients: [{ clientId: 'clocked' }] })
    await cluster.end(api, id)
    await cluster.untilSettled()
    const { rows } = await cluster.database.sql.query(
      `SELECT c.committed_at <= c.enforced_at AS enforced, c.committed_at <= d.done_at AS acknowledged, c.committed_at >= e.created_at AS committed,
         d.done_at <= clock_timestamp() AS past
       FROM session_events e JOIN commits c ON c.id = e.commit_id JOIN deliveries d ON d.session_id = e.session_id
       WHERE e.session_id = $1 AND e.type = 'session.terminated'`, [id])
    expect(rows).toEqual([{ committed: true, enforced: true, acknowledged: true, past: true }])
    expect(await cluster.metric(api, 'curfew_committed_seconds_count')).toBe(1)
    expect(await cluster.metric(worker, 'curfew_enforced_seconds_count')).toBe(1)
    expect(await cluster.metric(worker, 'curfew_acknowledged_seconds_count', 'channel="backchannel_logout"')).toBe(1)
    for (const [process, name] of [[api, 'committed'], [worker, 'enforced'], [worker, 'acknowledged']] as const) {
      const seconds = await cluster.metric(process, `curfew_${name}_seconds_sum`)
      expect(seconds).toBeGreaterThan(0)
      expect(seconds).toBeLessThan(10)
    }
  })

  it('G7: hanging, cutting and failing ones delay nobody but themselves, also where they are more than there are slots', async () => {
    const healthy = await open('healthy')
    const ill = await Promise.all([open('hanging-1', hang), open('hanging-2', hang), open('cutting', reset), open('failing', answer(500))])
    const [first = ''] = await cluster.live(1, { clients: [{ clientId: 'healthy' }] })
    await cluster.end(api, first)
    await expect.poll(() => sidsOf(healthy.tokens()), { timeout: 10_000 }).toEqual([first])
    await cluster.untilSettled()

    const clients = ['healthy', 'hanging-1', 'hanging-2', 'cutting', 'failing'].map((clientId) => ({ clientId }))
    for (let round = 0; round < 3; round += 1) {
      const ids = await cluster.live(15, { clients })
      const since = performance.now()
      const answers = new Map(await Promise.all(ids.map(async (id) => [id, await cluster.end(api, id)] as const)))
      await cluster.expectTruth(answers)
      await expect.poll(() => ids.filter((id) => !sidsOf(healthy.tokens()).includes(id)), { timeout: 10_000 }).toEqual([])
      // One hanging attempt alone takes 5 s, and there are up to 45 of them for each that hangs.
      expect(performance.now() - since).toBeLessThan(4_000)
    }
    await expect.poll(() => ill.map(({ requests }) => requests.length > 0), { timeout: 10_000 }).toEqual([true, true, true, true])
  })

  it('G5: what a receiver has not acknowledged is in Postgres, and told once it is well again', async () => {
    const ill = await open('recovering', answer(503))
    const ids = await cluster.live(5, { clients: [{ clientId: 'recovering' }] })
    for (const id of ids) await cluster.end(api, id)
    await expect.poll(() => ill.requests.length, { timeout: 10_000 }).toBeGreaterThan(0)
    const pending = async () =>
      (await cluster.database.sql.query(`SELECT session_id FROM deliveries WHERE receiver_id = 'recovering' AND state = 'pending'`)).rows
    await expect.poll(async () => (await pending()).length).toBe(ids.length)
    ill.always(answer(200))
    await expect.poll(pending, { timeout: 25_000, interval: 100 }).toEqual([])
    expect(new Set(sidsOf(ill.tokens()))).toEqual(new Set(ids))
  })
})
