import { randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { routeCommits } from '../../src/store/routing.ts'
import { readDueReceivers } from '../../src/store/stranded.ts'
import { terminateSessions } from '../../src/store/terminations.ts'
import { createUpkeep } from '../../src/upkeep/upkeep.ts'
import { HORIZON_SECONDS, MAX_TOKEN_LIFETIME_SECONDS, openGround } from '../delivery/ground.ts'
import type { Ground } from '../delivery/ground.ts'
import { startReceiver } from '../harness/receiver.ts'
import type { TestReceiver } from '../harness/receiver.ts'
import { command, seedSessions } from '../harness/seed.ts'

describe('upkeep', () => {
  let ground: Ground
  let receiver: TestReceiver
  beforeAll(async () => {
    ground = await openGround()
    receiver = await startReceiver()
  })
  afterAll(async () => {
    await receiver.close()
    await ground.close()
  })

  const running: ReturnType<typeof createUpkeep>[] = []
  afterEach(async () => {
    await Promise.all(running.splice(0).map((upkeep) => upkeep.stop()))
    await ground.sql.query('TRUNCATE deliveries, commits, receivers CASCADE')
  })
  let woken: string[]
  let delivered: string[]
  beforeEach(() => {
    woken = []
    delivered = []
    receiver.requests.length = 0
  })

  const upkeepWith = (changed: Partial<Parameters<typeof createUpkeep>[0]> = {}) => {
    const upkeep = createUpkeep({
      refreshPlans: async () => false,
      db: ground.db,
      route: ground.route,
      wakeRevocations: () => {},
      wakeReceiver: (id) => void woken.push(id),
      deliver: async (id) => void delivered.push(id),
      depth: async () => [{ lane: 'deliver', waiting: 3, oldestSeconds: 1.5 }],
      enforcePending: async () => 0,
      enforceAgain: async () => 0,
      keepStream: async () => {},
      takeUpRevocations: async () => {},
      horizonSeconds: HORIZON_SECONDS,
      metrics: ground.telemetry.metrics,
      log: ground.telemetry.log,
      ...changed,
    })
    running.push(upkeep)
    return upkeep
  }
  const committed = async (client: string): Promise<void> => {
    const id = randomUUID()
    await seedSessions(ground.sql, [{ id, clients: [{ clientId: client }] }])
    await terminateSessions(ground.db, [command(id)])
  }
  const older = (seconds: number) => ground.sql.query('UPDATE commits SET committed_at = committed_at - make_interval(secs => $1)', [seconds])
  const gauge = async (name: string): Promise<number | undefined> => {
    const metric = await ground.telemetry.registry.getSingleMetric(name)?.get()
    return metric?.values[0]?.value
  }

  it('G7: a step that hangs holds up no other, and does not run twice at once', async () => {
    let letGo = () => {}
    let taken = 0
    let looked = 0
    const upkeep = upkeepWith({
      takeUpRevocations: () => {
        taken += 1
        return new Promise<void>((resolve) => { letGo = resolve })
      },
      enforcePending: async () => { looked += 1 },
      intervalMs: 5,
    })
    await upkeep.start()
    await expect.poll(() => looked).toBeGreaterThan(3)
    expect(taken).toBe(1)
    letGo()
  })

  it('G5: hands on a commit whose wake-up was lost, and leaves a fresh one to its lane', async () => {
    await ground.put('lost', { url: receiver.url, clientId: 'lost' })
    await committed('lost')
    const upkeep = upkeepWith()
    await upkeep.tick()
    expect(await ground.states('lost')).toEqual({})
    await older(5)
    await upkeep.tick()
    expect(await ground.states('lost')).toEqual({ pending: 1 })
    expect(await gauge('curfew_unrouted_oldest_seconds')).toBeGreaterThanOrEqual(5)
  })

  it('wakes who has something due and is on, whole and not being drained', async () => {
    for (const id of ['due', 'later', 'off', 'broken', 'drained', 'abandoned', 'mended']) {
      await ground.put(id, { url: receiver.url, clientId: id })
      await ground.endSessions(id + randomUUID(), 1, id)
    }
    await ground.sql.query(`UPDATE deliveries SET due_at = now() + interval '1 h' WHERE receiver_id = 'later'`)
    await ground.sql.query(`UPDATE receivers SET enabled = false WHERE id = 'off'`)
    await ground.sql.query(`UPDATE receivers SET broken_until = now() + interval '1 h' WHERE id = 'broken'`)
    await ground.sql.query(`UPDATE receivers SET broken_until = now() WHERE id = 'mended'`)
    await ground.sql.query(`UPDATE receivers SET drained_until = now() + interval '1 h', drained_by = gen_random_uuid() WHERE id = 'drained'`)
    await ground.sql.query(`UPDATE receivers SET drained_until = now(), drained_by = gen_random_uuid() WHERE id = 'abandoned'`)
    await upkeepWith().tick()
    expect(woken.toSorted()).toEqual(['abandoned', 'due', 'mended'])
    expect(delivered).toEqual([])
  })

  it('G4: drains by itself what a wake-up through the queue did not help', async () => {
    await ground.put('away', { url: receiver.url, clientId: 'away' })
    await ground.endSessions(randomUUID(), 2, 'away')
    const lane = ground.deliverLane()
    const upkeep = upkeepWith({ deliver: lane.deliver })
    await upkeep.tick()
    expect(woken).toEqual(['away'])
    expect(receiver.requests).toHaveLength(0)
    await upkeep.tick()
    await expect.poll(() => ground.states('away')).toEqual({ acknowledged: 2 })
    expect(woken).toEqual(['away'])
  })

  it('looks at receivers a page at a time, and at all of them in turn', async () => {
    const ids = Array.from({ length: 7 }, (_, at) => `page-${at}`)
    for (const id of ids) {
      await ground.put(id, { url: receiver.url, clientId: id })
      await ground.endSessions(id + randomUUID(), 2, id)
    }
    const seen: string[] = []
    let after: string | null = ''
    do {
      const page: { ids: readonly string[]; next: string | null } = await readDueReceivers(ground.db, { after, limit: 3 })
      seen.push(...page.ids)
      after = page.next
    } while (after !== null)
    expect(seen).toEqual(ids)
  })

  it('settles what nobody will try any more: moot past all use, a dead letter past the horizon of a broken receiver', async () => {
    for (const id of ['fine', 'off', 'broken']) {
      await ground.put(id, { url: receiver.url, clientId: id })
      await ground.endSessions(id + randomUUID(), 3, id)
    }
    await ground.sql.query(`UPDATE receivers SET enabled = false WHERE id = 'off'`)
    await ground.sql.query(`UPDATE receivers SET broken_until = now() + interval '1 h' WHERE id = 'broken'`)
    await ground.sql.query(`
      WITH n AS (SELECT id, row_number() OVER (PARTITION BY receiver_id ORDER BY id) AS nth FROM deliveries)
      UPDATE deliveries d SET
        moot_at = CASE WHEN n.nth = 1 THEN now() ELSE d.moot_at END,
        created_at = CASE WHEN n.nth = 2 THEN d.created_at - interval '25 h' ELSE d.created_at END
      FROM n WHERE n.id = d.id`)
    await upkeepWith().tick()
    expect(await ground.states('fine')).toEqual({ pending: 3 })
    expect(await ground.states('off')).toEqual({ moot: 1, pending: 2 })
    expect((await ground.deliveries('broken')).map(({ state, last_outcome }) => [state, last_outcome])).toEqual([
      ['moot', 'moot'], ['failed', 'not_tried'], ['pending', null],
    ])
  })

  it('measures from Postgres what waits', async () => {
    await ground.put('counted', { url: receiver.url, clientId: 'counted' })
    await ground.endSessions(randomUUID(), 4, 'counted')
    await upkeepWith().tick()
    expect(await gauge('curfew_deliveries_pending')).toBe(4)
    expect(await gauge('curfew_queue_depth')).toBe(3)
    expect(await gauge('curfew_queue_oldest_seconds')).toBe(1.5)
  })

  it('goes on with the other steps where one fails', async () => {
    await ground.put('others', { url: receiver.url, clientId: 'others' })
    await ground.endSessions(randomUUID(), 1, 'others')
    let enforced = 0
    await upkeepWith({
      enforcePending: () => Promise.reject(new Error('Redis is away')),
      depth: () => Promise.reject(new Error('Redis is away')),
      enforceAgain: async () => void (enforced += 1),
    }).tick()
    expect(enforced).toBe(1)
    expect(woken).toEqual(['others'])
  })

  it('ticks by itself, never twice at once, and stops', async () => {
    let [now, most, ticks] = [0, 0, 0]
    const upkeep = upkeepWith({
      intervalMs: 5,
      enforcePending: async () => {
        now += 1
        most = Math.max(most, now)
        await ground.sql.query('SELECT pg_sleep(0.02)')
        now -= 1
        ticks += 1
      },
    })
    await upkeep.start()
    await expect.poll(() => ticks).toBeGreaterThan(3)
    await Promise.all([upkeep.tick(), upkeep.tick()])
    await upkeep.stop()
    const after = ticks
    expect([most, now]).toEqual([1, 0])
    await routeCommits(ground.db, { maxTokenLifetimeSeconds: MAX_TOKEN_LIFETIME_SECONDS })
    expect(ticks).toBe(after)
  })

  it('stops where it was never started', async () => {
    await upkeepWith().stop()
  })
})
