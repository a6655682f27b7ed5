import { randomUUID } from 'node:crypto'
import { decodeJwt } from 'jose'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { RemoteChannel } from '../../src/channels/channel.ts'
import { takeDrain } from '../../src/store/drains.ts'
import { openDatabase } from '../../src/store/postgres.ts'
import { answer, hang, reset, startReceiver } from '../harness/receiver.ts'
import type { TestReceiver } from '../harness/receiver.ts'
import { openGround } from './ground.ts'
import type { Ground } from './ground.ts'

/** Retries at once, so that tests need not wait; the real policy has tests of its own. */
const eager = { retry: { minMs: 0, maxMs: 0 } }
const neverOpens = { breaker: { failures: 1_000_000, minMs: 1, maxMs: 1 } }

describe('delivering to one receiver', () => {
  let ground: Ground
  let receiver: TestReceiver
  let id: string
  let client: string

  beforeAll(async () => { ground = await openGround() })
  afterAll(() => ground.close())
  beforeEach(async () => {
    receiver = await startReceiver()
    id = randomUUID()
    client = `client-${id}`
    await ground.put(id, { url: receiver.url, clientId: client })
  })
  afterEach(() => receiver.close())

  const end = (count: number) => ground.endSessions(id, count, client)

  it('G5: tells every session once and records the acknowledgement', async () => {
    const ids = await end(300)
    await ground.deliverLane().deliver(id)
    expect(receiver.tokens().map((token) => decodeJwt(token)['sid']).toSorted()).toEqual(ids.toSorted())
    expect(await ground.states(id)).toEqual({ acknowledged: 300 })
    const [first] = await ground.deliveries(id)
    expect(first).toMatchObject({ attempts: 1, last_outcome: 'delivered', last_status: 200, last_answer: null })
  })

  it('keeps to the receiver’s own concurrency, and reaches it', async () => {
    await ground.put(id, { url: receiver.url, clientId: client, maxConcurrency: 5 })
    receiver.always(answer(200, { afterMs: 20 }))
    await end(120)
    await ground.deliverLane().deliver(id)
    expect(receiver.inFlight.most).toBe(5)
  })

  it('keeps to the receiver’s own rate', async () => {
    await ground.put(id, { url: receiver.url, clientId: client, ratePerSecond: 50 })
    await end(26)
    await ground.deliverLane().deliver(id)
    const times = receiver.requests.map(({ atMs }) => atMs)
    expect(Math.max(...times) - Math.min(...times)).toBeGreaterThanOrEqual(400)
  })

  it('lets one process drain a receiver at a time', async () => {
    receiver.always(answer(200, { afterMs: 5 }))
    await end(150)
    const lanes = [ground.deliverLane(), ground.deliverLane(), ground.deliverLane()]
    await Promise.all(lanes.flatMap((lane) => [lane.deliver(id), lane.deliver(id)]))
    expect(receiver.requests).toHaveLength(150)
    expect(await ground.states(id)).toEqual({ acknowledged: 150 })
  })

  it('finds what becomes due while it drains', async () => {
    const lane = ground.deliverLane()
    await end(1)
    const more: Promise<unknown>[] = []
    receiver.script((response) => {
      more.push(ground.endSessions(`${id}-more`, 30, client).then(() => response.writeHead(200).end()))
    })
    await lane.deliver(id)
    await Promise.all(more)
    await expect.poll(() => ground.states(id)).toEqual({ acknowledged: 31 })
  })

  it('gives up on a refusal and keeps the receiver’s own words, without control characters and cut', async () => {
    receiver.always(answer(400, { body: `{"error":"\u0000\u001b[31minvalid_request\r\n"}${'😀'.repeat(2_000)}` }))
    await end(1)
    await ground.deliverLane().deliver(id)
    const [failed] = await ground.deliveries(id)
    expect(failed).toMatchObject({ state: 'failed', attempts: 1, last_outcome: 'rejected', last_status: 400 })
    expect(failed?.last_answer).toMatch(/^\{"error":" \[31minvalid_request "\}(😀)+$/u)
    expect(failed?.last_answer?.length).toBeLessThanOrEqual(1_024)
  })

  it('F42: takes a redirect for a failure', async () => {
    receiver.always(answer(302, { headers: { location: 'http://127.0.0.1:1/' } }))
    await end(1)
    await ground.deliverLane().deliver(id)
    expect((await ground.deliveries(id))[0]).toMatchObject({ state: 'failed', last_outcome: 'redirected', last_status: 302 })
  })

  it('F39: tries again after server errors until it is delivered, with a new token each time', async () => {
    receiver.script(answer(500), reset, answer(503))
    await end(1)
    await ground.deliverLane({ ...eager, ...neverOpens }).deliver(id)
    expect(await ground.deliveries(id)).toMatchObject([{ state: 'acknowledged', attempts: 4 }])
    expect(new Set(receiver.tokens().map((token) => decodeJwt(token).jti)).size).toBe(4)
  })

  it('F48: waits as long as the receiver asks, within an hour', async () => {
    const waits = [['120', 120], ['999999999', 3_600], ['-5', null], ['soon', null], [new Date(Date.now() + 300_000).toUTCString(), 300], ['Thu, 01 Jan 1970 00:00:00 GMT', 1]] as const
    const lane = ground.deliverLane({ ...neverOpens, random: () => 0 })
    for (const [header, seconds] of waits) {
      receiver.script(answer(429, { headers: { 'retry-after': header } }))
      await ground.endSessions(`${id}-${header}`, 1, client)
      await lane.deliver(id)
      const last = (await ground.deliveries(id)).at(-1)
      expect(last).toMatchObject({ state: 'pending', attempts: 1, last_outcome: 'throttled', last_status: 429 })
      expect(Math.abs((last?.due_in ?? 0) - (seconds ?? 1))).toBeLessThan(5)
    }
  })

  it('G5: makes the last attempt at the horizon, and then keeps it as a dead letter', async () => {
    receiver.always(answer(500))
    await end(2)
    const lane = ground.deliverLane({ ...neverOpens, horizonSeconds: 3_600, retry: { minMs: 7_200_000, maxMs: 7_200_000 } })
    await lane.deliver(id)
    for (const { due_in, state } of await ground.deliveries(id)) {
      expect(state).toBe('pending')
      expect(due_in).toBeLessThanOrEqual(3_600)
    }
    await ground.sql.query(`UPDATE deliveries SET created_at = created_at - interval '2 h', due_at = now() WHERE receiver_id = $1`, [id])
    await lane.deliver(id)
    expect(await ground.deliveries(id)).toMatchObject([
      { state: 'failed', attempts: 2, last_outcome: 'server_error', last_status: 500 }, { state: 'failed', attempts: 2 },
    ])
  })

  it('does not tell what is moot', async () => {
    await end(3)
    await ground.sql.query(`UPDATE deliveries SET moot_at = now() WHERE receiver_id = $1 AND session_id LIKE '%-1'`, [id])
    await ground.deliverLane().deliver(id)
    expect(receiver.requests).toHaveLength(2)
    expect(await ground.deliveries(id)).toMatchObject([{ state: 'acknowledged' }, { state: 'moot', attempts: 0, last_outcome: 'moot' }, { state: 'acknowledged' }])
  })

  it('tells a disabled receiver nothing, and everything once it is switched on', async () => {
    await ground.put(id, { url: receiver.url, clientId: client, enabled: false })
    await end(3)
    const lane = ground.deliverLane()
    await lane.deliver(id)
    expect(receiver.requests).toEqual([])
    await ground.put(id, { url: receiver.url, clientId: client })
    await lane.deliver(id)
    expect(await ground.states(id)).toEqual({ acknowledged: 3 })
  })

  it('follows a change of the receiver in the middle of a drain', async () => {
    const moved = await startReceiver()
    await end(200)
    receiver.script((response) => {
      void ground.put(id, { url: moved.url, clientId: client }).then(() => response.writeHead(200).end())
    })
    await ground.deliverLane().deliver(id)
    expect(await ground.states(id)).toEqual({ acknowledged: 200 })
    expect(moved.requests.length).toBeGreaterThan(0)
    await moved.close()
  })

  it('F48: switches off a receiver that says it is gone, where the channel knows such an answer', async () => {
    receiver.always(answer(410))
    const webhookLike: RemoteChannel = { ...ground.backchannel, judge: () => ({ verdict: 'receiver_gone' }) }
    await end(1)
    await ground.deliverLane({ channel: webhookLike }).deliver(id)
    const { rows } = await ground.sql.query('SELECT enabled FROM receivers WHERE id = $1', [id])
    expect(rows).toEqual([{ enabled: false }])
    expect((await ground.deliveries(id))[0]).toMatchObject({ state: 'failed', last_outcome: 'receiver_gone' })
  })

  it('records that a request could not be composed, and tries it again', async () => {
    await end(1)
    const broken: RemoteChannel = { ...ground.backchannel, compose: () => Promise.reject(new Error('no key')) }
    await ground.deliverLane({ channel: broken }).deliver(id)
    expect((await ground.deliveries(id))[0]).toMatchObject({ state: 'pending', attempts: 1, last_outcome: 'not_composed' })
    expect(receiver.requests).toEqual([])
  })

  it('F45: a receiver without a good certificate is a failure with its reason', async () => {
    await ground.put(id, { url: receiver.url.replace('http:', 'https:'), clientId: client })
    await end(1)
    await ground.deliverLane().deliver(id)
    expect((await ground.deliveries(id))[0]).toMatchObject({ state: 'pending', last_outcome: 'tls_refused' })
    expect(receiver.requests).toEqual([])
  })

  describe('the lease', () => {
    it('is not taken while another holds it, and is when it has run out', async () => {
      await end(1)
      const take = (leaseMs: number) => takeDrain(ground.db, { receiverId: id, holder: randomUUID(), leaseMs })
      expect(await take(200)).not.toBeNull()
      expect(await take(200)).toBeNull()
      await expect.poll(() => take(60_000)).not.toBeNull()
    })

    it('is prolonged while a slow answer is waited for', async () => {
      receiver.always(answer(200, { afterMs: 900 }))
      await end(1)
      const lane = ground.deliverLane({ leaseMs: 300 })
      const draining = lane.deliver(id)
      await expect.poll(() => receiver.inFlight.now).toBe(1)
      const thief = ground.deliverLane()
      while (receiver.inFlight.now > 0) await thief.deliver(id)
      await draining
      expect(receiver.requests).toHaveLength(1)
    })
  })

  it('stops cleanly: what is in flight is recorded, nothing more is sent, the lease is free', async () => {
    receiver.always(answer(200, { afterMs: 100 }))
    await end(100)
    const lane = ground.deliverLane()
    void lane.deliver(id)
    await expect.poll(() => receiver.inFlight.now).toBeGreaterThan(0)
    await lane.stop()
    const sent = receiver.requests.length
    expect(sent).toBeLessThan(100)
    expect(await ground.states(id)).toEqual({ acknowledged: sent, pending: 100 - sent })
    const { rows } = await ground.sql.query('SELECT drained_by FROM receivers WHERE id = $1', [id])
    expect(rows).toEqual([{ drained_by: null }])
    await lane.deliver(id)
    await ground.deliverLane().deliver(id)
    expect(await ground.states(id)).toEqual({ acknowledged: 100 })
  })

  it('stops also where Postgres no longer takes what came of it; it is told again then', async () => {
    const db = openDatabase({ url: ground.database.url, name: 'locked', max: 3, lockTimeoutMs: 200, statementTimeoutMs: 400 })
    const lane = ground.deliverLane({ db })
    await end(1)
    const blocker = await ground.sql.connect()
    receiver.script((response) => {
      void blocker.query('BEGIN').then(() => blocker.query('SELECT FROM receivers WHERE id = $1 FOR UPDATE', [id])).then(() => response.writeHead(200).end())
    })
    void lane.deliver(id)
    await expect.poll(() => receiver.requests.length).toBe(1)
    await expect.poll(() => receiver.inFlight.now).toBe(0)
    const startedMs = Date.now()
    await lane.stop()
    expect(Date.now() - startedMs).toBeLessThan(3_000)
    expect(await ground.deliveries(id)).toMatchObject([{ state: 'pending', attempts: 0 }])
    await blocker.query('ROLLBACK')
    blocker.release()
    await db.$disconnect()
  })

  it('a hanging receiver lets its caller go, and goes on by itself', async () => {
    receiver.always(hang)
    await end(3)
    const startedMs = Date.now()
    await ground.deliverLane({ timeoutMs: 4_000 }).deliver(id)
    expect(Date.now() - startedMs).toBeLessThan(3_500)
    expect(receiver.inFlight.now).toBe(1)
  })
})
