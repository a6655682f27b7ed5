import { randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { redeliverAll, redeliverOne } from '../../src/store/redelivery.ts'
import { answer, startReceiver } from '../harness/receiver.ts'
import type { TestReceiver } from '../harness/receiver.ts'
import { ISSUER } from '../harness/seed.ts'
import { HORIZON_SECONDS, openGround } from './ground.ts'
import type { Ground } from './ground.ts'

const asked = { reach: 'instance', issuers: [ISSUER], horizonSeconds: HORIZON_SECONDS } as const
const neverOpens = { breaker: { failures: 1_000_000, minMs: 1, maxMs: 1 } }

describe('sending dead letters again', () => {
  let ground: Ground
  let receiver: TestReceiver
  let id: string
  beforeAll(async () => { ground = await openGround() })
  afterAll(() => ground.close())
  beforeEach(async () => {
    receiver = await startReceiver()
    id = randomUUID()
    await ground.put(id, { url: receiver.url, clientId: id })
  })
  afterEach(() => receiver.close())

  /** Dead letters, by the receiver's own refusal. */
  const bury = async (count: number) => {
    receiver.always(answer(400, { body: 'no' }))
    await ground.endSessions(id, count, id)
    await ground.deliverLane().deliver(id)
    expect(await ground.states(id)).toEqual({ failed: count })
    receiver.always(answer(200))
  }
  const all = (state: 'failed' | 'moot' = 'failed') => redeliverAll(ground.db, { ...asked, receiverId: id, state })
  const change = (set: string, where = 'true') => ground.sql.query(`UPDATE deliveries SET ${set} WHERE receiver_id = $1 AND ${where}`, [id])

  it('G5: tells all of a receiver’s again, with attempts begun anew', async () => {
    await bury(40)
    expect(await all()).toEqual({ redelivered: 40, more: false })
    expect(await ground.deliveries(id)).toMatchObject([{ state: 'pending', attempts: 0, last_outcome: 'rejected' }, ...Array.from({ length: 39 }, () => ({ state: 'pending' }))])
    await ground.deliverLane().deliver(id)
    expect(await ground.states(id)).toEqual({ acknowledged: 40 })
    expect((await ground.deliveries(id))[0]).toMatchObject({ attempts: 1 })
    expect(await all()).toEqual({ redelivered: 0, more: false })
  })

  it('begins the horizon anew, however old the delivery is', async () => {
    await bury(1)
    await change(`created_at = created_at - interval '10 d', due_at = due_at - interval '10 d'`)
    await all()
    receiver.always(answer(503))
    await ground.deliverLane(neverOpens).deliver(id)
    expect(await ground.deliveries(id)).toMatchObject([{ state: 'pending', attempts: 1, last_outcome: 'server_error' }])
    await change(`redelivered_at = redelivered_at - interval '25 h', due_at = now()`)
    await ground.deliverLane(neverOpens).deliver(id)
    expect(await ground.deliveries(id)).toMatchObject([{ state: 'failed', attempts: 2 }])
  })

  it('leaves what is moot by now, and tells it where moot ones are asked for', async () => {
    await bury(2)
    const ids = (await ground.deliveries(id)).map((row) => row.id)
    await change('moot_at = now()', `id = ${ids[0]}`)
    expect(await all()).toEqual({ redelivered: 1, more: false })
    await change(`state = 'moot', done_at = now()`, `id = ${ids[0]}`)
    expect(await all('moot')).toEqual({ redelivered: 1, more: false })
    await ground.deliverLane().deliver(id)
    expect(await ground.states(id)).toEqual({ acknowledged: 2 })
  })

  it('tells one alone, and changes nothing where it is due already', async () => {
    await bury(2)
    const [first] = await ground.deliveries(id)
    const one = () => redeliverOne(ground.db, { ...asked, id: first?.id ?? '' })
    expect(await one()).toMatchObject({ id: first?.id, receiverId: id, state: 'pending', attempts: 0, redeliveredAt: expect.any(Date) as Date, doneAt: null })
    expect(await one()).toMatchObject({ state: 'pending', attempts: 0 })
    await ground.deliverLane().deliver(id)
    expect(await ground.states(id)).toEqual({ acknowledged: 1, failed: 1 })
    await expect(one()).rejects.toMatchObject({ kind: 'delivery_not_dead' })
  })

  it('passes over what someone else holds, and does not wait for it', async () => {
    await bury(3)
    const other = await ground.sql.connect()
    await other.query('BEGIN')
    await other.query('SELECT FROM deliveries WHERE receiver_id = $1 ORDER BY id LIMIT 1 FOR UPDATE', [id])
    expect(await all()).toEqual({ redelivered: 2, more: false })
    await other.query('ROLLBACK')
    other.release()
  })

  it('makes due what is many slices long', async () => {
    await ground.sql.query(
      `INSERT INTO deliveries (receiver_id, session_id, client_id, sid, sub, issuer, state, moot_at, done_at)
       SELECT $1, 's' || n, 'c', 's' || n, 'u', $2, 'failed', now() + interval '1 d', now() FROM generate_series(1, 12000) n`, [id, ISSUER])
    expect(await all()).toEqual({ redelivered: 12_000, more: false })
  })
})
