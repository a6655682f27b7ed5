import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { revocationCompletedEvent } from '../../src/api/webhook-document.ts'
import { createRouteRevocations } from '../../src/outbox/route-revocations.ts'
import { MAX_TOKEN_LIFETIME_SECONDS, openGround } from '../delivery/ground.ts'
import type { Ground } from '../delivery/ground.ts'
import { answer, startReceiver } from '../harness/receiver.ts'
import type { TestReceiver } from '../harness/receiver.ts'
import { finishRevocation, outcomesOf, seedRevocation } from '../harness/revocations.ts'
import type { SeedRevocation } from '../harness/revocations.ts'
import { ISSUER } from '../harness/seed.ts'

describe('revocation.completed', () => {
  let ground: Ground
  let receiver: TestReceiver
  beforeAll(async () => {
    ground = await openGround()
    receiver = await startReceiver()
    const events = ['session.terminated', 'revocation.completed']
    await ground.putWebhook('all', { url: receiver.url, events })
    await ground.putWebhook('o1', { url: receiver.url, events, resourceOwner: 'o1' })
    await ground.putWebhook('o2', { url: receiver.url, events, resourceOwner: 'o2' })
    await ground.putWebhook('sessions-only', { url: receiver.url })
    await ground.sql.query(`INSERT INTO receivers (id, type, url, issuer, events, secret) VALUES ('stranger', 'webhook', $1, 'https://else', $2, 'x')`, [receiver.url, events])
  })
  afterAll(async () => {
    await receiver.close()
    await ground.close()
  })

  const routeAll = () => createRouteRevocations({ db: ground.db, wakeReceiver: () => {}, maxTokenLifetimeSeconds: MAX_TOKEN_LIFETIME_SECONDS })()
  const told = async (revocation: string): Promise<string[]> => (await ground.sql.query<{ receiver_id: string }>(
    `SELECT receiver_id FROM deliveries WHERE revocation_id = $1 AND event = 'revocation.completed' ORDER BY 1`, [revocation])).rows.map(({ receiver_id }) => receiver_id)
  const complete = async (options: SeedRevocation = {}): Promise<string> => {
    const revocation = await seedRevocation(ground.sql, options)
    await ground.sql.query(`INSERT INTO revocation_slices (revocation_id, number, walks, start_key, until_key, at_key, ended, matched, terminated)
      VALUES ($1, 1, 'ids', '{}', '{}', '{}', true, 5, 4), ($1, 2, 'ids', '{}', '{}', '{}', true, 2, 2)`, [revocation])
    await finishRevocation(ground.sql, revocation)
    return revocation
  }

  it('is planned once for each webhook that asks for it, however many look', async () => {
    const revocation = await complete()
    await Promise.all([routeAll(), routeAll(), routeAll()])
    await routeAll()
    expect(await told(revocation)).toEqual(['all'])
    expect(await outcomesOf(ground.sql, revocation)).toEqual([{ receiver_id: 'all', total: 1, pending: 1, acknowledged: 0, failed: 0, moot: 0 }])
  })

  it('is planned once also where its notifications are steered after, and webhooks are registered after', async () => {
    const revocation = await complete()
    await routeAll()
    await ground.putWebhook('after', { url: receiver.url, events: ['revocation.completed'] })
    for (const to of ['paused', 'running']) {
      await ground.sql.query('UPDATE revocations SET notifications = $2::notification_state WHERE id = $1', [revocation, to])
      await routeAll()
    }
    expect(await told(revocation)).toEqual(['all'])
    await ground.sql.query(`DELETE FROM receivers WHERE id = 'after'`)
  })

  it.each([
    ['the whole instance', {}, ['all']],
    ['one organization, by its caller', { organizations: ['o1'] }, ['all', 'o1']],
    ['one organization, by its filter', { filter: { resourceOwners: ['o1'] } }, ['all', 'o1']],
    ['one organization, by both', { organizations: ['o1', 'o2'], filter: { resourceOwners: ['o2'] } }, ['all', 'o2']],
    ['two organizations', { filter: { resourceOwners: ['o1', 'o2'] } }, ['all']],
    ['another issuer', { issuers: ['https://else'] }, ['stranger']],
    ['two issuers', { issuers: ['https://else', ISSUER] }, ['all', 'stranger']],
  ])('G6: of one that reaches %s, tells no webhook of more than it may see', async (_, options, expected) => {
    const revocation = await complete(options)
    await routeAll()
    expect(await told(revocation)).toEqual(expected)
  })

  it('waits until the second clock is known, and for a minute at most', async () => {
    const revocation = await seedRevocation(ground.sql)
    await ground.sql.query(`UPDATE revocations SET state = 'done', committed_at = now() WHERE id = $1`, [revocation])
    await routeAll()
    expect(await told(revocation)).toEqual([])
    await ground.sql.query(`UPDATE revocations SET committed_at = committed_at - interval '2 minutes' WHERE id = $1`, [revocation])
    await routeAll()
    expect(await told(revocation)).toEqual(['all'])
  })

  it('is not told of one that was cancelled', async () => {
    const revocation = await seedRevocation(ground.sql)
    await ground.sql.query(`UPDATE revocations SET state = 'cancelled' WHERE id = $1`, [revocation])
    await routeAll()
    expect(await told(revocation)).toEqual([])
  })

  it('is held while notifications are paused', async () => {
    const revocation = await seedRevocation(ground.sql)
    await ground.sql.query(`UPDATE revocations SET notifications = 'paused' WHERE id = $1`, [revocation])
    await finishRevocation(ground.sql, revocation)
    await routeAll()
    const { rows } = await ground.sql.query(`SELECT due_at = 'infinity' AS held FROM deliveries WHERE revocation_id = $1`, [revocation])
    expect(rows).toEqual([{ held: true }])
  })

  it('says what its schema says, the same in every attempt', async () => {
    await ground.sql.query('DELETE FROM deliveries')
    receiver.requests.length = 0
    receiver.script(answer(500))
    const revocation = await complete()
    await routeAll()
    const lane = ground.deliverLane({ retry: { minMs: 1, maxMs: 1 } })
    await expect.poll(async () => {
      await lane.deliver('all')
      return receiver.requests.length
    }).toBe(2)
    const [first, second] = receiver.requests
    expect(second?.body).toBe(first?.body)
    expect(second?.headers['webhook-id']).toBe(first?.headers['webhook-id'])
    const event = revocationCompletedEvent.parse(JSON.parse(first?.body ?? ''))
    expect(event.data).toMatchObject({ revocation: `revocations/${revocation}`, mode: 'revoke', reason: 'stolen laptop', ticket: 'INC-1', sessions: { matched: '7', terminated: '6' } })
    expect(event.data.enforcedTime).toBeDefined()
    await expect.poll(() => outcomesOf(ground.sql, revocation)).toMatchObject([{ acknowledged: 1, pending: 0 }])
  })

  it('G6: says no counts where sessions of other issuers are among them', async () => {
    await ground.sql.query('DELETE FROM deliveries')
    receiver.requests.length = 0
    await complete({ issuers: ['https://else', ISSUER] })
    await routeAll()
    await ground.deliverLane().deliver('all')
    const event = revocationCompletedEvent.parse(JSON.parse(receiver.requests[0]?.body ?? ''))
    expect(event.data.sessions).toBeUndefined()
  })
})
