import { setTimeout as wait } from 'node:timers/promises'
import { decodeJwt } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createRouteRevocations } from '../../src/outbox/route-revocations.ts'
import { answer, startReceiver } from '../harness/receiver.ts'
import type { TestReceiver } from '../harness/receiver.ts'
import { endByRevocation, seedRevocation } from '../harness/revocations.ts'
import { seedSessions } from '../harness/seed.ts'
import { MAX_TOKEN_LIFETIME_SECONDS, openGround } from './ground.ts'
import type { Ground } from './ground.ts'

/** So many at some milliseconds each, two at a time: some seconds. */
const BACKLOG = 1_500
const ANSWER_MS = 5
/** A look and what is under way, many times over; a backlog takes longer. */
const SOON_MS = 1_500

describe('log-outs beside a revocation', () => {
  let ground: Ground
  let receiver: TestReceiver
  beforeAll(async () => {
    ground = await openGround()
    receiver = await startReceiver()
    receiver.always(answer(200, { afterMs: ANSWER_MS }))
  })
  afterAll(async () => {
    await receiver.close()
    await ground.close()
  })
  const told = (): string[] => receiver.tokens().map((token) => String(decodeJwt(token)['sid']))

  it('G8: are told before its backlog at the same receiver, also while that is being told', async () => {
    await ground.put('busy', { url: receiver.url, maxConcurrency: 2 })
    const ids = Array.from({ length: BACKLOG }, (_, at) => `bulk-${at}`)
    await ground.sql.query(
      `WITH s AS (
         INSERT INTO sessions (id, issuer, user_id, resource_owner, sequence, registration_hash, creator_issuer, creator_subject, born, created_at, change_date, expires_at)
         SELECT id, 'https://id.example', id, 'o1', 1, 'x', 'i', 's', now(), now(), now(), now() + interval '1 hour' FROM unnest($1::text[]) AS u(id) RETURNING id)
       INSERT INTO session_clients SELECT id, 'app', id, id FROM s`, [ids])
    const revocation = await seedRevocation(ground.sql)
    await endByRevocation(ground.sql, revocation, ids)
    await createRouteRevocations({ db: ground.db, wakeReceiver: () => {}, maxTokenLifetimeSeconds: MAX_TOKEN_LIFETIME_SECONDS })()
    // One before the drain begins, one while it is in the middle.
    await ground.endSessions('first', 1)
    const draining = ground.deliverLane().deliver('busy')
    await expect.poll(() => receiver.requests.length, { timeout: 10_000 }).toBeGreaterThan(100)
    expect(told().indexOf('first-0')).toBeLessThan(5)
    const sinceMs = performance.now()
    await ground.endSessions('second', 1)
    await expect.poll(() => told().includes('second-0'), { interval: 5, timeout: 10_000 }).toBe(true)
    expect(performance.now() - sinceMs).toBeLessThan(SOON_MS)
    expect(told().filter((sid) => sid.startsWith('bulk-')).length).toBeLessThan(BACKLOG)
    await draining
    await wait(0)
    expect(new Set(told()).size).toBe(BACKLOG + 2)
  }, 30_000)

  it('G8: find a place in a process that is full of revocations’ backlogs', async () => {
    receiver.requests.length = 0
    await ground.put('full', { url: receiver.url, clientId: 'full', maxConcurrency: 1 })
    await ground.put('other', { url: receiver.url, clientId: 'other' })
    const revocation = await seedRevocation(ground.sql)
    await ground.sql.query(
      `INSERT INTO deliveries (receiver_id, session_id, client_id, sid, sub, issuer, moot_at, revocation_id)
       SELECT 'full', 'full-' || n, 'full', 'full-' || n, 'u', 'https://id.example', now() + interval '1 d', $1 FROM generate_series(1, 600) n`, [revocation])
    const lane = ground.deliverLane({ maxDrains: 1, turnMs: 100 })
    const turn = lane.deliver('full')
    await expect.poll(() => receiver.requests.length, { timeout: 10_000 }).toBeGreaterThan(0)
    await ground.endSessions('placed', 1, 'other')
    // As upkeep does, again and again.
    await expect.poll(async () => {
      await Promise.all(['full', 'other'].map((id) => lane.deliver(id)))
      return told().includes('placed-0')
    }, { timeout: 10_000, interval: 10 }).toBe(true)
    await turn
    expect(await ground.states('full')).toMatchObject({ pending: expect.any(Number) as number })
    await expect.poll(async () => {
      await lane.deliver('full')
      return (await ground.states('full'))['acknowledged']
    }, { timeout: 20_000 }).toBe(600)
  }, 40_000)

  it('are told once of a user, by the name of the user alone, whatever the receiver is set to by then', async () => {
    receiver.requests.length = 0
    await ground.put('user', { url: receiver.url, clientId: 'user-app', subject: 'sub' })
    await seedSessions(ground.sql, ['u-1', 'u-2'].map((id) => ({ id, userId: 'u', clients: [{ clientId: 'user-app' }] })))
    const revocation = await seedRevocation(ground.sql)
    await endByRevocation(ground.sql, revocation, ['u-1', 'u-2'])
    await createRouteRevocations({ db: ground.db, wakeReceiver: () => {}, maxTokenLifetimeSeconds: MAX_TOKEN_LIFETIME_SECONDS })()
    await ground.put('user', { url: receiver.url, clientId: 'user-app', subject: 'sid' })
    await ground.deliverLane().deliver('user')
    const claims = receiver.tokens().map((token) => decodeJwt(token))
    expect(claims.map(({ sub, sid }) => ({ sub, sid }))).toEqual([{ sub: 'u', sid: undefined }])
  })
})
