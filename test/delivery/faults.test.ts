/** The hostile and the broken, as the lane records them: each by its reason, tried again, and nobody else's business. */
import { randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createResolve } from '../../src/delivery/resolve.ts'
import { startNameServer } from '../harness/name-server.ts'
import type { NameServer } from '../harness/name-server.ts'
import { answer, dripHeaders, endless, hang, reset, startReceiver } from '../harness/receiver.ts'
import type { Answering, TestReceiver } from '../harness/receiver.ts'
import { openGround } from './ground.ts'
import type { Ground } from './ground.ts'

const TIMEOUT_MS = 600
const eager = { retry: { minMs: 0, maxMs: 0 }, breaker: { failures: 1_000_000, minMs: 1, maxMs: 1 } }

describe('faults of receivers', () => {
  let ground: Ground
  let receiver: TestReceiver
  let names: NameServer
  let id: string
  beforeAll(async () => {
    ground = await openGround()
    names = await startNameServer()
  })
  afterAll(async () => {
    await ground.close()
    await names.close()
  })
  beforeEach(async () => {
    receiver = await startReceiver()
    id = randomUUID()
  })
  afterEach(() => receiver.close())

  const hostile: [string, Answering, { last_outcome: string; last_status: number | null }][] = [
    ['F41: headers that drip', dripHeaders, { last_outcome: 'timeout', last_status: null }],
    ['F41: no answer', hang, { last_outcome: 'timeout', last_status: null }],
    ['F43: an answer without end', endless(500, { bytes: 0 }), { last_outcome: 'server_error', last_status: 500 }],
    ['F44: a connection that is cut before the answer', reset, { last_outcome: 'connection_lost', last_status: null }],
  ]
  it.each(hostile)('%s: ends the attempt, says why, and is tried again', async (_, answering, outcome) => {
    await ground.put(id, { url: receiver.url, clientId: id })
    receiver.always(answering)
    await ground.endSessions(id, 1, id)
    const startedMs = Date.now()
    const lane = ground.deliverLane({ timeoutMs: TIMEOUT_MS })
    await lane.deliver(id)
    await expect.poll(() => ground.deliveries(id)).toMatchObject([{ state: 'pending', attempts: 1, ...outcome }])
    expect(Date.now() - startedMs).toBeLessThan(TIMEOUT_MS + 2_000)
    receiver.always(answer(200))
    await ground.sql.query('UPDATE deliveries SET due_at = now() WHERE receiver_id = $1', [id])
    await lane.deliver(id)
    expect(await ground.deliveries(id)).toMatchObject([{ state: 'acknowledged', attempts: 2 }])
  })

  it('F44: what may have arrived comes again under the same webhook-id, and as a logout token of its own', async () => {
    await ground.putWebhook(`hook-${id}`, { url: receiver.url, resourceOwner: 'o1' })
    await ground.put(id, { url: receiver.url, clientId: id })
    receiver.script(reset, reset)
    await ground.endSessions(id, 1, id)
    const lane = ground.deliverLane(eager)
    await lane.deliver(`hook-${id}`)
    const hooks = receiver.requests.map(({ headers }) => headers['webhook-id'])
    expect([hooks.length, new Set(hooks).size]).toEqual([3, 1])
    receiver.requests.splice(0)
    receiver.script(reset)
    await lane.deliver(id)
    expect(new Set(receiver.tokens()).size).toBe(2)
    await ground.sql.query('DELETE FROM receivers WHERE id = $1', [`hook-${id}`])
  })

  it('F46: names that fail or hang are tried again, and hold up nobody', async () => {
    const [good, failing, ...hanging] = Array.from({ length: 12 }, (_, at) => `${['good', 'failing'][at] ?? `hangs-${at}`}-${id}`)
    const url = (name = '') => `http://${name}.test:${receiver.port}/`
    names.set(`${good}.test`, ['127.0.0.1'])
    names.set(`${failing}.test`, 'SERVFAIL')
    for (const name of hanging) names.set(`${name}.test`, 'silence')
    for (const name of [good, failing, ...hanging]) {
      await ground.put(name ?? '', { url: url(name), clientId: name ?? '' })
      await ground.endSessions(name ?? '', name === good ? 40 : 1, name)
    }
    const lane = ground.deliverLane({ concurrency: 8, timeoutMs: 4_000, resolve: createResolve({ servers: [names.address], system: () => Promise.reject(new Error('unknown')) }) })
    const startedMs = Date.now()
    const bad = [failing, ...hanging].map((name) => lane.deliver(name ?? ''))
    // As upkeep does: whoever found no slot is woken again.
    await expect.poll(async () => {
      await lane.deliver(good ?? '')
      return ground.states(good ?? '')
    }, { timeout: 10_000 }).toEqual({ acknowledged: 40 })
    expect(Date.now() - startedMs).toBeLessThan(4_000)
    await Promise.all(bad)
    await expect.poll(() => ground.deliveries(failing ?? '')).toMatchObject([{ state: 'pending', attempts: 1, last_outcome: 'name_not_resolved' }])
  })
})
