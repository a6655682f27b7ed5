import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { listDeliveries } from '../../src/store/deliveries.ts'
import { deleteReceiver, getReceiver, listReceivers, putReceiver } from '../../src/store/receivers.ts'
import type { ReceiverSettings, Within } from '../../src/store/receivers.ts'
import { ISSUER } from '../harness/seed.ts'
import { openGround } from './ground.ts'
import type { Ground } from './ground.ts'

const settings: ReceiverSettings = {
  type: 'backchannel_logout', url: 'https://rp.example/logout', issuer: ISSUER, clientId: 'app', resourceOwner: 'o1', subject: 'both', alg: 'ES256',
  events: [], maxConcurrency: 3, ratePerSecond: 7, enabled: true,
}
const instance: Within = { reach: 'instance', issuers: [ISSUER] }
const ofO1: Within = { reach: new Set(['o1']), issuers: [ISSUER] }
const ofO2: Within = { reach: new Set(['o2']), issuers: [ISSUER] }
const ofElse: Within = { reach: 'instance', issuers: ['https://else'] }

describe('receivers', () => {
  let ground: Ground
  beforeAll(async () => {
    ground = await openGround()
    await putReceiver(ground.db, { ...instance, id: 'of-o1', secret: null, settings })
    await putReceiver(ground.db, { ...instance, id: 'of-all', secret: null, settings: { ...settings, resourceOwner: null } })
  })
  afterAll(() => ground.close())

  it('are created once and replaced after that, with all that they were given', async () => {
    const { receiver, created } = await putReceiver(ground.db, { ...ofO1, id: 'mine', secret: null, settings })
    expect(created).toBe(true)
    expect(receiver).toMatchObject({ id: 'mine', ...settings, consecutiveFailures: 0, brokenUntil: null })
    const again = await putReceiver(ground.db, { ...ofO1, id: 'mine', secret: null, settings: { ...settings, ratePerSecond: null, maxConcurrency: 9 } })
    expect(again).toMatchObject({ created: false, receiver: { ratePerSecond: null, maxConcurrency: 9 } })
    expect(await getReceiver(ground.db, { ...ofO1, id: 'mine' })).toEqual(again.receiver)
    await deleteReceiver(ground.db, { ...ofO1, id: 'mine' })
  })

  it.each([['another organization’s', ofO2], ['another issuer’s', ofElse]])('G6: are not there for %s callers, in no way', async (_whose, within) => {
    const gone = { kind: 'receiver_not_found' }
    await expect(getReceiver(ground.db, { ...within, id: 'of-o1' })).rejects.toMatchObject(gone)
    await expect(deleteReceiver(ground.db, { ...within, id: 'of-o1' })).rejects.toMatchObject(gone)
    await expect(listDeliveries(ground.db, { ...within, receiverId: 'of-o1', state: null, before: null, limit: 10 })).rejects.toMatchObject(gone)
    const theirs = { ...settings, resourceOwner: within === ofO2 ? 'o2' : null, issuer: within.issuers[0] ?? null }
    await expect(putReceiver(ground.db, { ...within, id: 'of-o1', secret: null, settings: theirs })).rejects.toMatchObject(gone)
    expect(await listReceivers(ground.db, { ...within, after: null, limit: 10 })).toEqual([])
    expect(await getReceiver(ground.db, { ...instance, id: 'of-o1' })).toMatchObject(settings)
  })

  it('G6: of the instance are beyond those who hold an organization, and nobody gives one to where he may not', async () => {
    await expect(getReceiver(ground.db, { ...ofO1, id: 'of-all' })).rejects.toMatchObject({ kind: 'receiver_not_found' })
    for (const owner of [null, 'o2']) {
      await expect(putReceiver(ground.db, { ...ofO1, id: 'new', secret: null, settings: { ...settings, resourceOwner: owner } })).rejects.toMatchObject({ kind: 'permission_denied' })
    }
    await expect(putReceiver(ground.db, { ...ofO1, id: 'new', secret: null, settings: { ...settings, issuer: 'https://else' } })).rejects.toMatchObject({ kind: 'permission_denied' })
  })

  it('are listed in the order of their ids, a page at a time', async () => {
    const first = await listReceivers(ground.db, { ...instance, after: null, limit: 1 })
    const second = await listReceivers(ground.db, { ...instance, after: first[0]?.id ?? '', limit: 5 })
    expect([...first, ...second].map(({ id }) => id)).toEqual(['of-all', 'of-o1'])
  })

  it('list their deliveries newest first, by state and a page at a time', async () => {
    await ground.endSessions('listed', 6)
    await ground.sql.query(`UPDATE deliveries SET state = 'failed', last_outcome = 'rejected', last_answer = 'no' WHERE session_id IN ('listed-1', 'listed-4')`)
    const list = async (asked: { state?: 'failed' | 'pending' | 'moot'; before?: string; limit?: number }) =>
      listDeliveries(ground.db, { ...instance, receiverId: 'of-o1', state: asked.state ?? null, before: asked.before ?? null, limit: asked.limit ?? 100 })
    const all = await list({})
    expect(all).toHaveLength(6)
    expect(all.map(({ id }) => Number(id))).toEqual(all.map(({ id }) => Number(id)).toSorted((a, b) => b - a))
    expect(await list({ state: 'failed' })).toMatchObject([
      { state: 'failed', lastOutcome: 'rejected', lastAnswer: 'no', attempts: 0 }, { state: 'failed' },
    ])
    expect(await list({ state: 'moot' })).toEqual([])
    const page = await list({ limit: 4 })
    const rest = await list({ limit: 4, before: page.at(-1)?.id ?? '' })
    expect([...page, ...rest]).toEqual(all)
  })
})
