/** What can be seen of a revocation while it goes on, and how it is steered. The test itself does the engine's work, in SQL. */
import { request } from 'node:http'
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { eventsOf } from '../../src/client/lines.ts'
import { startRevocationApi } from './revocation-rig.ts'
import type { RevocationApi } from './revocation-rig.ts'

let api: RevocationApi
let port: number
let id: string
beforeAll(async () => {
  api = await startRevocationApi()
  port = await api.listen()
})
afterAll(() => api.close())
beforeEach(async () => {
  id = await api.accept({ filter: { sessionIds: ['s'] } })
})

const sql = (text: string, values: readonly unknown[] = [id]) => api.database.sql.query(text, [...values])
const work = (matched: number, terminated: number) =>
  sql(`INSERT INTO revocation_slices (revocation_id, number, walks, start_key, until_key, at_key, matched, terminated) VALUES ($1, $2, 'ids', '{}', '{}', '{}', $3, $4)
       ON CONFLICT (revocation_id, number) DO UPDATE SET matched = excluded.matched, terminated = excluded.terminated`, [id, 1, matched, terminated])
const finish = () => sql(`UPDATE revocations SET state = 'done', committed_at = now() WHERE id = $1`)
const outcome = (receiver: string, counts: { total: number; acknowledged?: number; pending?: number; failed?: number }) =>
  sql(`INSERT INTO revocation_outcomes (revocation_id, receiver_id, total, acknowledged, pending, failed, acknowledged_at) VALUES ($1, $2, $3, $4, $5, $6, now())
       ON CONFLICT (revocation_id, receiver_id) DO UPDATE SET total = excluded.total, acknowledged = excluded.acknowledged, pending = excluded.pending`,
    [id, receiver, counts.total, counts.acknowledged ?? 0, counts.pending ?? 0, counts.failed ?? 0])
const read = async (query = '') => (await api.call('GET', `/v1/revocations/${id}${query}`)).json()
const steer = (verb: string, body?: object) => api.call('POST', `/v1/revocations/${id}:${verb}`, body === undefined ? {} : { body })

describe('a revocation that is read', () => {
  it('G9: has counts that are the sums of this moment', async () => {
    await work(5, 4)
    await sql(`INSERT INTO revocation_slices (revocation_id, number, walks, start_key, until_key, at_key, matched, terminated) VALUES ($1, 2, 'ids', '{}', '{}', '{}', 9007199254740993, 1)`)
    await outcome('r1', { total: 3, acknowledged: 1, pending: 2 })
    await outcome('r2', { total: 1, failed: 1 })
    expect(await read()).toMatchObject({ metadata: {
      sessions: { expected: '0', matched: '9007199254740998', terminated: '5' },
      deliveries: { total: '4', acknowledged: '1', pending: '2', failed: '1', moot: '0' },
    } })
  })

  it('G11: has its three clocks, the third only when nobody is still to be told', async () => {
    const time = expect.stringMatching(/Z$/)
    const clocks = async () => {
      const { metadata: { committedTime, enforcedTime, acknowledgedTime } } = await read()
      return { committedTime, enforcedTime, acknowledgedTime }
    }
    await outcome('r1', { total: 2, acknowledged: 1, pending: 1 })
    expect(await clocks()).toEqual({ committedTime: null, enforcedTime: null, acknowledgedTime: null })
    await finish()
    expect(await clocks()).toEqual({ committedTime: time, enforcedTime: null, acknowledgedTime: null })
    await sql('UPDATE revocations SET enforced_at = now() WHERE id = $1')
    await sql('INSERT INTO commits (sessions, revocation_id) VALUES (1, $1)')
    await outcome('r1', { total: 2, acknowledged: 2 })
    expect(await clocks()).toEqual({ committedTime: time, enforcedTime: time, acknowledgedTime: null })
    await sql('UPDATE commits SET routed_at = now() WHERE revocation_id = $1')
    expect(await clocks()).toEqual({ committedTime: time, enforcedTime: time, acknowledgedTime: time })
    expect(await read()).toMatchObject({ done: true, response: { remaining: '0' } })
  })

  it('is held until it is done, or as long as was asked', async () => {
    let isAnswered = false
    const held = read('?wait=20s').finally(() => (isAnswered = true))
    await work(1, 1)
    expect(await read('?wait=0')).toMatchObject({ done: false })
    expect(isAnswered).toBe(false)
    await finish()
    expect(await held).toMatchObject({ done: true, metadata: { sessions: { terminated: '1' } } })
    expect(await read('?wait=30s')).toMatchObject({ done: true })
    id = await api.accept({ filter: { sessionIds: ['s'] } })
    expect(await read('?wait=1')).toMatchObject({ done: false })
  })

  it('is let go when it is cancelled', async () => {
    const held = read('?wait=20s')
    await steer('cancel')
    expect(await held).toMatchObject({ done: true, error: { code: 1 }, metadata: { state: 'cancelled' } })
  })
})

describe('progress', () => {
  const follow = async () => {
    const response = await new Promise<NodeJS.ReadableStream & { headers: NodeJS.Dict<string | string[]> }>((resolve, reject) => {
      request({ port, host: '127.0.0.1', path: `/v1/revocations/${id}/progress`, headers: { authorization: api.admin } }, resolve).on('error', reject).end()
    })
    expect(response.headers['content-type']).toBe('text/event-stream; charset=utf-8')
    return eventsOf(response as never)
  }

  it('is told as it goes on, with its rate and the time that is left, and ends with all of it', async () => {
    await sql('UPDATE revocations SET expected = 1000 WHERE id = $1')
    await work(0, 0)
    let last: { event: string; data: string } = { event: '', data: '{}' }
    const events: string[] = []
    let ended = 0
    for await (const { event, data } of await follow()) {
      events.push(event)
      if (event === 'done') break
      last = { event, data }
      const { metadata, rate, secondsLeft } = JSON.parse(data)
      if (rate > 0 && secondsLeft > 0) {
        expect(metadata.sessions.terminated).toBe(String(ended))
        await outcome('r1', { total: ended, acknowledged: ended })
        await finish()
      } else if (!JSON.parse(data).done) {
        ended += 100
        await work(ended, ended)
      }
    }
    expect(JSON.parse(last.data)).toMatchObject({ name: `revocations/${id}`, done: true, secondsLeft: 0, metadata: { deliveries: { pending: '0', total: String(ended) } } })
    expect(events.slice(0, 2)).toEqual(['progress', 'progress'])
    expect(events.at(-1)).toBe('done')
  })

  it('goes on while somebody is still to be told', async () => {
    await outcome('r1', { total: 1, pending: 1 })
    await finish()
    const events: string[] = []
    for await (const { event } of await follow()) {
      events.push(event)
      if (events.length === 1) await outcome('r1', { total: 1, acknowledged: 1 })
      if (event === 'done') break
    }
    expect(events).toEqual(['progress', 'progress', 'done'])
  })
})

describe('steering', () => {
  it('pauses, resumes and cancels, and says who did it', async () => {
    const states = []
    for (const [verb, body] of [['pause'], ['pause'], ['resume', { only: 'terminations' }], ['resume'], ['cancel', { only: 'notifications' }], ['cancel']] as const) {
      const answer = await steer(verb, body)
      expect(answer.statusCode).toBe(200)
      const { state, notifications } = answer.json().metadata
      states.push(`${state} ${notifications}`)
    }
    expect(states).toEqual(['paused paused', 'paused paused', 'running paused', 'running running', 'running cancelled', 'cancelled cancelled'])
    const { rows } = await sql('SELECT type FROM revocation_events WHERE revocation_id = $1 AND actor_subject = $2 ORDER BY position', [id, 'admin'])
    expect(rows.map(({ type }) => type)).toEqual([
      'revocation.accepted', 'terminations.paused', 'notifications.paused', 'terminations.resumed', 'notifications.resumed',
      'notifications.cancelled', 'terminations.cancelled',
    ])
    expect(api.bulkWoken.filter((woken) => woken === id)).toHaveLength(7)
  })

  it('is refused with a sentence where it cannot be, and changes nothing', async () => {
    id = await api.accept({ filter: { userIds: ['somebody'] } })
    for (const verb of ['pause', 'cancel']) {
      const answer = await steer(verb)
      expect([answer.statusCode, answer.json()]).toEqual([400, expect.objectContaining({ code: 9, message: expect.stringMatching(/rules are in force.*notifications can be/) })])
      expect((await steer(verb, { only: 'notifications' })).statusCode).toBe(200)
    }
    expect(await read()).toMatchObject({ metadata: { state: 'running', notifications: 'cancelled' } })
    expect((await steer('resume')).json()).toMatchObject({ metadata: { state: 'running', notifications: 'cancelled' } })
  })

  it('by many at once comes one after the other', async () => {
    const verbs = Array.from({ length: 20 }, (_, n) => (n % 2 === 0 ? 'pause' : 'resume'))
    const answers = await Promise.all(verbs.map((verb) => steer(verb)))
    expect(new Set(answers.map(({ statusCode }) => statusCode))).toEqual(new Set([200]))
    const { rows } = await sql(`SELECT type FROM revocation_events WHERE revocation_id = $1 AND type LIKE 'terminations.%' ORDER BY position`)
    // Each event says a change, so they alternate.
    rows.forEach(({ type }, at) => expect(type).toBe(at % 2 === 0 ? 'terminations.paused' : 'terminations.resumed'))
  })

  it('is answered when nothing is being ended any more', async () => {
    await work(1, 1)
    const chunk = await api.database.sql.connect()
    await chunk.query('BEGIN')
    await chunk.query('SELECT FROM revocation_slices WHERE revocation_id = $1 FOR UPDATE', [id])
    let isAnswered = false
    const paused = steer('pause').finally(() => (isAnswered = true))
    await vi.waitFor(async () => {
      const { rows } = await sql(`SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%revocation_slices%' AND datname = current_database()`, [])
      expect(rows).toHaveLength(1)
    }, { timeout: 10_000 })
    expect(isAnswered).toBe(false)
    await chunk.query('COMMIT')
    chunk.release()
    expect((await paused).json()).toMatchObject({ metadata: { state: 'paused' } })
  })
})
