import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { readDue, recordOutcomes, releaseDrain, takeDrain } from '../../src/store/drains.ts'
import type { DrainHealth, DrainedReceiver, RecordedOutcome } from '../../src/store/drains.ts'
import { HORIZON_SECONDS, openGround } from './ground.ts'
import type { Ground } from './ground.ts'

const healthy: DrainHealth = { consecutiveFailures: 0, brokenForMs: null, succeeded: true, failed: false, gone: false }

describe('recording outcomes', () => {
  let ground: Ground
  let id: string
  beforeAll(async () => { ground = await openGround() })
  afterAll(() => ground.close())
  beforeEach(async () => {
    id = randomUUID()
    await ground.put(id, { url: 'https://rp.example/', clientId: id })
    await ground.endSessions(id, 1, id)
  })

  const take = async (holder: string): Promise<DrainedReceiver> => {
    const taken = await takeDrain(ground.db, { receiverId: id, holder, leaseMs: 60_000 })
    if (taken === null) throw new Error('The drain was not taken')
    return taken
  }
  /** As if the lease had run out while its holder stood still. */
  const runOut = () => ground.sql.query('UPDATE receivers SET drained_until = now() WHERE id = $1', [id])
  const dueOne = async () => {
    const [due] = await readDue(ground.db, { receiverId: id, inHand: [], after: null, limit: 10, ofRevocations: { inHand: [], after: null, limit: 10 }, forWebhook: false })
    if (due === undefined) throw new Error('Nothing is due')
    return due
  }
  const outcome = (deliveryId: string, attempts: number, changed: Partial<RecordedOutcome>): RecordedOutcome => ({
    id: deliveryId, attempts, tried: true, state: 'acknowledged', afterMs: 0, outcome: 'delivered', status: 200, answer: null, ...changed,
  })
  const record = (holder: string, { version }: DrainedReceiver, outcomes: RecordedOutcome[], health: DrainHealth = healthy) =>
    recordOutcomes(ground.db, { receiverId: id, holder, version, leaseMs: 60_000, horizonSeconds: HORIZON_SECONDS, health, outcomes })

  it('records an attempt once, however often it is written', async () => {
    const drain = await take(id)
    const due = await dueOne()
    const retry = outcome(due.id, due.attempts, { state: 'pending', outcome: 'server_error', status: 500, afterMs: 60_000 })
    expect(await record(id, drain, [retry])).toEqual({ same: true, recorded: 1, failed: 0 })
    expect(await record(id, drain, [retry])).toEqual({ same: true, recorded: 0, failed: 0 })
    expect(await ground.deliveries(id)).toMatchObject([{ attempts: 1, state: 'pending' }])
  })

  it('lets an acknowledgement count, also from a process that stood still until after its lease', async () => {
    const [frozen, successor] = [randomUUID(), randomUUID()]
    const first = await take(frozen)
    const due = await dueOne()
    await runOut()
    const second = await take(successor)
    await record(successor, second, [outcome(due.id, due.attempts, { state: 'pending', outcome: 'timeout', status: null, afterMs: 60_000 })])
    expect(await record(frozen, first, [outcome(due.id, due.attempts, {})])).toMatchObject({ same: null, recorded: 1 })
    expect(await ground.deliveries(id)).toMatchObject([{ state: 'acknowledged', attempts: 2 }])
  })

  it('lets nothing undo an acknowledgement', async () => {
    const drain = await take(id)
    const due = await dueOne()
    await record(id, drain, [outcome(due.id, due.attempts, {})])
    expect(await record(id, drain, [outcome(due.id, due.attempts, { state: 'failed', outcome: 'rejected', status: 400 })])).toMatchObject({ recorded: 0 })
    expect(await ground.deliveries(id)).toMatchObject([{ state: 'acknowledged', attempts: 1, last_status: 200 }])
  })

  it('takes no word on a receiver’s health from one who no longer drains it', async () => {
    const [frozen, successor] = [randomUUID(), randomUUID()]
    const first = await take(frozen)
    await runOut()
    await take(successor)
    await record(frozen, first, [], { ...healthy, consecutiveFailures: 9, brokenForMs: 60_000, gone: true })
    const { rows } = await ground.sql.query('SELECT consecutive_failures, broken_until, enabled FROM receivers WHERE id = $1', [id])
    expect(rows).toEqual([{ consecutive_failures: 0, broken_until: null, enabled: true }])
    await releaseDrain(ground.db, { receiverId: id, holder: frozen })
    expect(await takeDrain(ground.db, { receiverId: id, holder: frozen, leaseMs: 1 })).toBeNull()
  })

  it('takes no word on the health of settings that are no more', async () => {
    const drain = await take(id)
    await ground.put(id, { url: 'https://rp.example/new', clientId: id })
    expect(await record(id, drain, [], { ...healthy, consecutiveFailures: 9, brokenForMs: 60_000 })).toMatchObject({ same: false })
    const { rows } = await ground.sql.query('SELECT consecutive_failures, broken_until FROM receivers WHERE id = $1', [id])
    expect(rows).toEqual([{ consecutive_failures: 0, broken_until: null }])
  })

  it('does not read what the drain has in hand', async () => {
    await ground.endSessions(`${id}-b`, 2, id)
    await take(id)
    const [first] = await readDue(ground.db, { receiverId: id, inHand: [], after: null, limit: 1, ofRevocations: { inHand: [], after: null, limit: 10 }, forWebhook: false })
    const rest = await readDue(ground.db, { receiverId: id, inHand: [first?.id ?? ''], after: null, limit: 10, ofRevocations: { inHand: [], after: null, limit: 10 }, forWebhook: false })
    expect(rest).toHaveLength(2)
    expect(rest.map((due) => due.id)).not.toContain(first?.id)
  })
})
