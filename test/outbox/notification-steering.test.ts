import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createRouteRevocations } from '../../src/outbox/route-revocations.ts'
import { planLateParticipant } from '../../src/store/deliveries.ts'
import { recordOutcomes, takeDrain } from '../../src/store/drains.ts'
import type { RecordedOutcome } from '../../src/store/drains.ts'
import { redeliverOfRevocation } from '../../src/store/redelivery.ts'
import { routeRevocation } from '../../src/store/routing-revocations.ts'
import { MAX_TOKEN_LIFETIME_SECONDS, openGround } from '../delivery/ground.ts'
import type { Ground } from '../delivery/ground.ts'
import { startReceiver } from '../harness/receiver.ts'
import { countedOutcomes, endByRevocation, finishRevocation, outcomesOf, seedRevocation } from '../harness/revocations.ts'
import type { SeedRevocation } from '../harness/revocations.ts'
import { seedSessions } from '../harness/seed.ts'

const url = 'https://rp.example/logout'
const HOLDER = '00000000-0000-4000-8000-000000000001'

describe('notifications of a revocation', () => {
  let ground: Ground
  beforeAll(async () => { ground = await openGround() })
  afterAll(() => ground.close())

  const woken: string[] = []
  const routeAll = async (): Promise<string[]> => {
    woken.length = 0
    await createRouteRevocations({ db: ground.db, wakeReceiver: (id) => void woken.push(id), maxTokenLifetimeSeconds: MAX_TOKEN_LIFETIME_SECONDS })()
    return woken
  }
  const steer = (id: string, to: string) => ground.sql.query('UPDATE revocations SET notifications = $2::notification_state WHERE id = $1', [id, to])
  const end = async (revocation: string, client: string, name: string, count: number): Promise<void> => {
    const ids = Array.from({ length: count }, (_, at) => `${name}-${at}`)
    await seedSessions(ground.sql, ids.map((id) => ({ id, userId: id, clients: [{ clientId: client }] })))
    await endByRevocation(ground.sql, revocation, ids)
  }
  /** A receiver of its own, and a revocation that ended `count` sessions that it is to be told of. */
  const begin = async (name: string, count: number, options: SeedRevocation & { subject?: 'sub' } = {}): Promise<string> => {
    await ground.put(name, { url, clientId: name, ...(options.subject === undefined ? {} : { subject: options.subject }) })
    const revocation = await seedRevocation(ground.sql, options)
    await end(revocation, name, name, count)
    return revocation
  }
  /** How many are held, due, or done, by state and last outcome. */
  const summary = async (revocation: string) => Object.fromEntries((await ground.sql.query<{ what: string; n: number }>(
    `SELECT CASE WHEN state <> 'pending' THEN state || ' ' || last_outcome WHEN due_at < 'infinity' THEN 'due' ELSE 'held' END AS what, count(*)::int AS n
     FROM deliveries WHERE revocation_id = $1 GROUP BY 1`, [revocation])).rows.map(({ what, n }) => [what, n]))
  const seconds = async (revocation: string): Promise<number[]> => (await ground.sql.query<{ after: number }>(
    'SELECT round(extract(epoch FROM due_at - now()), 1)::float8 AS after FROM deliveries WHERE revocation_id = $1 ORDER BY due_at', [revocation])).rows.map(({ after }) => after)
  const turns = async (revocation: string): Promise<number> =>
    (await ground.sql.query('SELECT FROM revocation_turns WHERE revocation_id = $1', [revocation])).rowCount ?? 0

  /** Records outcomes as a drain that had these in hand, whatever became of them meanwhile. */
  const record = async (receiverId: string, change: Partial<RecordedOutcome>): Promise<void> => {
    const { rows } = await ground.sql.query<{ id: string }>('SELECT id::text FROM deliveries WHERE receiver_id = $1', [receiverId])
    await ground.sql.query(`UPDATE receivers SET drained_by = $2, drained_until = now() + interval '1 minute' WHERE id = $1`, [receiverId, HOLDER])
    await recordOutcomes(ground.db, {
      receiverId, holder: HOLDER, version: '', leaseMs: 60_000, horizonSeconds: 3_600,
      health: { consecutiveFailures: 0, brokenForMs: null, succeeded: true, failed: false, gone: false },
      outcomes: rows.map(({ id }) => ({ id, attempts: 0, tried: true, state: 'pending', afterMs: 0, outcome: 'server_error', status: 500, answer: null, ...change })),
    })
  }

  it('are held when they are paused, what is planned already and what comes, and due when they are resumed', async () => {
    const revocation = await begin('hold', 3)
    await routeAll()
    await steer(revocation, 'paused')
    await end(revocation, 'hold', 'hold-more', 2)
    expect(await routeAll()).toEqual([])
    expect(await summary(revocation)).toEqual({ held: 5 })
    expect(await takeDrain(ground.db, { receiverId: 'hold', holder: HOLDER, leaseMs: 1_000 })).toBeNull()
    expect(await turns(revocation)).toBe(0)
    await steer(revocation, 'running')
    expect(await routeAll()).toEqual(['hold'])
    expect(await summary(revocation)).toEqual({ due: 5 })
    expect(await outcomesOf(ground.sql, revocation)).toMatchObject([{ total: 5, pending: 5 }])
  })

  it('are due when they are resumed before it was finished to hold them', async () => {
    const revocation = await begin('half', 2)
    await steer(revocation, 'paused')
    // A router that plans as steered, and dies before it looks at anything else.
    await routeRevocation(ground.db, { revocationId: revocation, maxTokenLifetimeSeconds: 1 })
    expect(await summary(revocation)).toEqual({ held: 2 })
    await steer(revocation, 'running')
    expect(await routeAll()).toEqual(['half'])
    expect(await summary(revocation)).toEqual({ due: 2 })
  })

  it('stay held where an attempt that was under way is to be made again', async () => {
    const revocation = await begin('in-hand', 2)
    await routeAll()
    await steer(revocation, 'paused')
    await routeAll()
    await record('in-hand', {})
    expect(await summary(revocation)).toEqual({ held: 2 })
  })

  it('are held also of a participant that came late', async () => {
    const revocation = await begin('late', 1)
    await steer(revocation, 'paused')
    await routeAll()
    const late = { sessionId: 'late-0', participant: { clientId: 'late', sid: 'another', sub: 'u' }, maxTokenLifetimeSeconds: 1 }
    expect(await planLateParticipant(ground.db, late)).toEqual(['late'])
    expect(await summary(revocation)).toEqual({ held: 2 })
  })

  it('are dead letters when they are cancelled, and can be sent again', async () => {
    const revocation = await begin('cancel', 3)
    await routeAll()
    await steer(revocation, 'cancelled')
    await end(revocation, 'cancel', 'cancel-more', 2)
    await routeAll()
    expect(await summary(revocation)).toEqual({ 'failed cancelled': 5 })
    expect(await outcomesOf(ground.sql, revocation)).toMatchObject([{ total: 5, pending: 0, failed: 5 }])
    const again = await redeliverOfRevocation(ground.db, { revocationId: revocation, state: 'failed', horizonSeconds: 60, wake: () => {} })
    expect(again).toEqual({ redelivered: 5, more: false })
    // The end of its terminations does not cancel them once more.
    await finishRevocation(ground.sql, revocation)
    await routeAll()
    expect(await summary(revocation)).toEqual({ due: 5 })
  })

  it('count as acknowledged where the answer came after they were cancelled', async () => {
    const revocation = await begin('answered', 2)
    await routeAll()
    await steer(revocation, 'cancelled')
    await routeAll()
    await record('answered', { state: 'acknowledged', outcome: 'delivered' })
    expect(await outcomesOf(ground.sql, revocation)).toMatchObject([{ total: 2, acknowledged: 2, failed: 0 }])
  })

  it('come in line where they are paced, one after another whoever plans them', async () => {
    const revocation = await begin('paced', 4, { deliveriesPerSecond: 2 })
    await routeAll()
    await end(revocation, 'paced', 'paced-more', 2)
    await routeAll()
    const due = await seconds(revocation)
    const [first = 0] = due
    expect(due.map((after) => Math.round((after - first) * 2) / 2)).toEqual([0, 0.5, 1, 1.5, 2, 2.5])
  })

  it('come in line anew where they are resumed, and have their whole horizon from there', async () => {
    const revocation = await begin('resumed', 3, { deliveriesPerSecond: 1 })
    await steer(revocation, 'paused')
    await routeAll()
    await ground.sql.query(`UPDATE deliveries SET created_at = now() - interval '2 days' WHERE revocation_id = $1`, [revocation])
    await steer(revocation, 'running')
    await routeAll()
    expect((await seconds(revocation)).map((after) => Math.round(after) + 0)).toEqual([0, 1, 2])
    await record('resumed', { afterMs: 10_000 })
    expect(await summary(revocation)).toEqual({ due: 3 })
  })

  it('come in line from now on where they are resumed, not behind the places that they had', async () => {
    const revocation = await begin('again', 30, { deliveriesPerSecond: 1 })
    await routeAll()
    expect((await seconds(revocation)).at(-1)).toBeGreaterThan(25)
    for (const to of ['paused', 'running', 'paused', 'running']) {
      await steer(revocation, to)
      await routeAll()
    }
    const due = await seconds(revocation)
    expect(due[0]).toBeLessThan(1)
    expect(due.map((after) => Math.round(after - (due[0] ?? 0)))).toEqual(Array.from({ length: 30 }, (_, at) => at))
  })

  it('come in line from now on where they are sent again after a cancel, not behind the places that they had', async () => {
    const revocation = await begin('sent-again', 30, { deliveriesPerSecond: 1 })
    await routeAll()
    await steer(revocation, 'cancelled')
    await routeAll()
    await end(revocation, 'sent-again', 'sent-again-more', 10)
    await routeAll()
    await redeliverOfRevocation(ground.db, { revocationId: revocation, state: 'failed', horizonSeconds: 60, wake: () => {} })
    const due = await seconds(revocation)
    expect(due[0]).toBeLessThan(1)
    expect(due.map((after) => Math.round(after - (due[0] ?? 0)))).toEqual(Array.from({ length: 40 }, (_, at) => at))
  })

  it('leave who waits for the end waiting, paused or resumed', async () => {
    await ground.put('waiting', { url, clientId: 'waiting', subject: 'sub' })
    await seedSessions(ground.sql, ['w1', 'w2'].map((id) => ({ id, userId: 'w', clients: [{ clientId: 'waiting' }] })))
    const revocation = await seedRevocation(ground.sql)
    await endByRevocation(ground.sql, revocation, ['w1'])
    await routeAll()
    for (const to of ['paused', 'running']) {
      await steer(revocation, to)
      await routeAll()
      expect(await summary(revocation)).toEqual({ held: 1 })
    }
    await steer(revocation, 'paused')
    await endByRevocation(ground.sql, revocation, ['w2'])
    await routeAll()
    expect(await summary(revocation)).toEqual({ held: 1 })
    await steer(revocation, 'running')
    await routeAll()
    expect(await summary(revocation)).toEqual({ due: 1 })
  })

  it('are steered in steps: also many are held and resumed, by several at once', async () => {
    const revocation = await begin('many', 1)
    await routeAll()
    await ground.sql.query(
      `INSERT INTO deliveries (receiver_id, session_id, client_id, sid, sub, issuer, moot_at, revocation_id)
       SELECT 'many', 'm' || n, 'many', 'm' || n, 'u', 'i', now() + interval '1 day', $1 FROM generate_series(1, 12000) n`, [revocation])
    await steer(revocation, 'paused')
    await Promise.all([routeAll(), routeAll(), routeAll()])
    expect(await summary(revocation)).toEqual({ held: 12_001 })
    await steer(revocation, 'running')
    await Promise.all([routeAll(), routeAll()])
    expect(await summary(revocation)).toEqual({ due: 12_001 })
  })

  it('G9: are counted exactly, whatever is planned, told, steered and sent again at the same time', async () => {
    const receiver = await startReceiver()
    receiver.always((response, _request, count) => void response.writeHead(count % 5 === 0 ? 500 : count % 7 === 0 ? 400 : 200).end())
    for (const id of ['mix-a', 'mix-b']) await ground.put(id, { url: receiver.url, clientId: 'mix' })
    await ground.put('mix-c', { url: receiver.url, clientId: 'mix', subject: 'sub' })
    const revocation = await seedRevocation(ground.sql)
    const lane = ground.deliverLane({ retry: { minMs: 1, maxMs: 5 } })
    let going = true
    const routing = (async () => {
      while (going) {
        await routeAll()
        for (const id of ['mix-a', 'mix-b', 'mix-c']) await lane.deliver(id)
      }
    })()
    const exact = async () => (await ground.sql.query(
      `SELECT FROM revocation_outcomes o FULL JOIN (
         SELECT receiver_id, count(*) AS total, count(*) FILTER (WHERE state = 'pending') AS pending, count(*) FILTER (WHERE state = 'acknowledged') AS acknowledged,
           count(*) FILTER (WHERE state = 'failed') AS failed FROM deliveries WHERE revocation_id = $1 GROUP BY 1) d USING (receiver_id)
       WHERE o.revocation_id = $1 AND (o.total, o.pending, o.acknowledged, o.failed) IS DISTINCT FROM (d.total, d.pending, d.acknowledged, d.failed)`, [revocation])).rowCount
    for (let round = 0; round < 6; round += 1) {
      await end(revocation, 'mix', `mix-${round}`, 20)
      await steer(revocation, round % 2 === 0 ? 'paused' : 'running')
      expect(await exact()).toBe(0)
      await redeliverOfRevocation(ground.db, { revocationId: revocation, state: 'failed', horizonSeconds: 60, wake: () => {} })
      expect(await exact()).toBe(0)
    }
    await finishRevocation(ground.sql, revocation)
    await expect.poll(async () => (await outcomesOf(ground.sql, revocation)).every(({ pending }) => pending === 0), { timeout: 15_000 }).toBe(true)
    going = false
    await routing
    await lane.stop()
    await receiver.close()
    expect(await outcomesOf(ground.sql, revocation)).toEqual(await countedOutcomes(ground.sql, revocation))
    expect((await outcomesOf(ground.sql, revocation)).map(({ total }) => total)).toEqual([120, 120, 120])
  })
})
