import { Webhook } from 'standardwebhooks'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { terminateSessions } from '../../src/store/terminations.ts'
import { rotateSecret } from '../../src/store/webhook-secrets.ts'
import { answer, startReceiver } from '../harness/receiver.ts'
import type { ReceivedRequest, TestReceiver } from '../harness/receiver.ts'
import { ISSUER, command, seedSessions } from '../harness/seed.ts'
import { openGround } from './ground.ts'
import type { Ground } from './ground.ts'

interface Event {
  type: string
  data: { sessionId: string; resourceOwner: string }
}

const verify = (secret: string, { body, headers }: ReceivedRequest): Event => new Webhook(secret).verify(body, headers as Record<string, string>) as Event
const within = { reach: 'instance', issuers: [ISSUER] } as const

describe('telling webhooks', () => {
  let ground: Ground
  let receiver: TestReceiver
  beforeAll(async () => { ground = await openGround() })
  afterAll(() => ground.close())
  beforeEach(async () => {
    receiver = await startReceiver()
    await ground.sql.query('DELETE FROM receivers')
  })
  afterEach(() => receiver.close())

  const endOne = async (id: string, change: { resourceOwner?: string; issuer?: string; clients?: string[] } = {}) => {
    const { resourceOwner = 'o1', issuer = ISSUER, clients = [] } = change
    await seedSessions(ground.sql, [{ id, resourceOwner, issuer, userId: `user-of-${id}`, clients: clients.map((clientId) => ({ clientId })) }])
    await terminateSessions(ground.db, [command(id, { issuers: [issuer], mode: 'revoke', reason: 'lost phone' })])
    await ground.route()
  }
  const told = (secret: string) => receiver.requests.map((request) => verify(secret, request).data.sessionId).toSorted()

  it('tells each session of the issuer once, with or without participants, as the library verifies it', async () => {
    const secret = await ground.putWebhook('hook', { url: receiver.url })
    await endOne('a-none')
    await endOne('a-two', { clients: ['app', 'other'], resourceOwner: 'o2' })
    await endOne('a-else', { issuer: 'https://else.example' })
    await ground.deliverLane().deliver('hook')
    expect(told(secret)).toEqual(['a-none', 'a-two'])
    const [first] = receiver.requests
    expect(first?.headers['content-type']).toBe('application/json')
    const event = receiver.requests.map((request) => verify(secret, request)).find(({ data }) => data.sessionId === 'a-two')
    const { rows } = await ground.sql.query<{ at: Date }>(`SELECT terminated_at AS at FROM sessions WHERE id = 'a-two'`)
    const at = rows[0]?.at.toISOString()
    expect(event).toEqual({
      type: 'session.terminated', timestamp: at,
      data: { sessionId: 'a-two', issuer: ISSUER, userId: 'user-of-a-two', resourceOwner: 'o2', mode: 'revoke', reason: 'lost phone', sequence: '2', terminatedAt: at },
    })
    expect(await ground.states('hook')).toEqual({ acknowledged: 2 })
  })

  it('G6: tells a webhook of an organization of its sessions alone', async () => {
    const secret = await ground.putWebhook('of-o1', { url: receiver.url, resourceOwner: 'o1' })
    await endOne('b-o1', { clients: ['app'] })
    await endOne('b-o2', { clients: ['app'], resourceOwner: 'o2' })
    await ground.deliverLane().deliver('of-o1')
    expect(told(secret)).toEqual(['b-o1'])
  })

  it('tells nobody who has not asked for the event', async () => {
    await ground.putWebhook('not-asked', { url: receiver.url, events: [] })
    await endOne('c')
    expect(await ground.states('not-asked')).toEqual({})
  })

  it('tells relying parties and webhooks of one session side by side, without mixing them up', async () => {
    await ground.put('rp', { url: receiver.url, clientId: 'app' })
    await ground.putWebhook('hook', { url: receiver.url })
    await endOne('d', { clients: ['app'] })
    const lane = ground.deliverLane()
    await Promise.all(['rp', 'hook'].map((id) => lane.deliver(id)))
    expect(receiver.requests.map(({ headers }) => headers['content-type']).toSorted()).toEqual(['application/json', 'application/x-www-form-urlencoded'])
    expect([await ground.states('rp'), await ground.states('hook')]).toEqual([{ acknowledged: 1 }, { acknowledged: 1 }])
  })

  it('F39: repeats id and body until it is acknowledged, with a signature of each attempt', async () => {
    const secret = await ground.putWebhook('hook', { url: receiver.url })
    receiver.script(answer(500), answer(404), answer(429))
    await endOne('e')
    await ground.deliverLane({ retry: { minMs: 0, maxMs: 0 } }).deliver('hook')
    expect(await ground.deliveries('hook')).toMatchObject([{ state: 'acknowledged', attempts: 4 }])
    for (const request of receiver.requests) verify(secret, request)
    expect(new Set(receiver.requests.map(({ body }) => body)).size).toBe(1)
    expect(new Set(receiver.requests.map(({ headers }) => headers['webhook-id'])).size).toBe(1)
  })

  it('F48: a receiver that answers 410 is switched off, says so, and is told the rest once it is switched on again', async () => {
    const secret = await ground.putWebhook('gone', { url: receiver.url })
    receiver.script(answer(410))
    await endOne('f-0')
    const lane = ground.deliverLane()
    await lane.deliver('gone')
    const state = async () => (await ground.sql.query('SELECT enabled, gone_at IS NOT NULL AS gone FROM receivers')).rows
    expect(await state()).toEqual([{ enabled: false, gone: true }])
    expect(await ground.deliveries('gone')).toMatchObject([{ state: 'failed', last_outcome: 'receiver_gone', last_status: 410 }])
    await endOne('f-1')
    await lane.deliver('gone')
    expect(receiver.requests).toHaveLength(1)
    await ground.putWebhook('gone', { url: receiver.url })
    expect(await state()).toEqual([{ enabled: true, gone: false }])
    await lane.deliver('gone')
    expect(verify(secret, receiver.requests[1] as ReceivedRequest).data.sessionId).toBe('f-1')
  })

  it('signs with the new and the former secret for the overlap, then with the new one alone', async () => {
    const first = await ground.putWebhook('turn', { url: receiver.url })
    const rotate = async (overlapSeconds: number): Promise<string> => {
      const { shown, sealed } = ground.secrets.make('turn')
      await rotateSecret(ground.db, { ...within, id: 'turn', secret: sealed, overlapSeconds })
      return shown
    }
    const lane = ground.deliverLane()
    const tellOne = async (id: string): Promise<ReceivedRequest> => {
      await endOne(id)
      await lane.deliver('turn')
      return receiver.requests.at(-1) as ReceivedRequest
    }
    const second = await rotate(3_600)
    const both = await tellOne('g-0')
    for (const secret of [first, second]) verify(secret, both)
    const third = await rotate(3_600)
    const later = await tellOne('g-1')
    for (const secret of [second, third]) verify(secret, later)
    expect(() => verify(first, later)).toThrow()
    await ground.sql.query(`UPDATE receivers SET secret_previous_until = now() WHERE id = 'turn'`)
    const alone = await tellOne('g-2')
    verify(third, alone)
    expect(() => verify(second, alone)).toThrow()
    const fourth = await rotate(0)
    const cut = await tellOne('g-3')
    verify(fourth, cut)
    expect(() => verify(third, cut)).toThrow()
  })
})
