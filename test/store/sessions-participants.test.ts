import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { openDatabase } from '../../src/store/postgres.ts'
import type { Database } from '../../src/store/postgres.ts'
import { createSessionStore } from '../../src/store/sessions.ts'
import type { SessionStore } from '../../src/store/sessions.ts'
import { terminateSessions } from '../../src/store/terminations.ts'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'
import { eventsOf, registrar, registration, rowOf } from '../harness/registrations.ts'
import { ISSUER, command } from '../harness/seed.ts'

let database: TestDatabase
let db: Database
let sessions: SessionStore

beforeAll(async () => {
  database = await createDatabase()
  db = openDatabase({ url: database.url, name: 'test', max: 10 })
  sessions = createSessionStore({ db, maxLifetimeSeconds: 86_400, maxTokenLifetimeSeconds: 86_400 })
  await database.sql.query(
    `INSERT INTO receivers (id, type, url, issuer, client_id) VALUES ('rp', 'backchannel_logout', 'https://rp.example/logout', $1, 'rp')`,
    [ISSUER],
  )
})
afterAll(async () => {
  await db.$disconnect()
  await database.drop()
})

const joining = (sessionId: string, clientId = 'rp') => ({ sessionId, clientId, sid: null, sub: null })
const clientsOf = async (id: string) =>
  (await database.sql.query('SELECT client_id, sid, sub FROM session_clients WHERE session_id = $1 ORDER BY client_id, sid', [id])).rows
const deliveriesOf = async (id: string) =>
  (await database.sql.query(`SELECT receiver_id, client_id, sid, sub, state FROM deliveries WHERE session_id = $1`, [id])).rows

const someoneWaits = () =>
  vi.waitFor(async () => {
    const { rows } = await database.sql.query(
      `SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'curfew-test' AND wait_event_type = 'Lock'`,
    )
    expect(rows.length).toBeGreaterThan(0)
  }, { timeout: 10_000 })

describe('a live session', () => {
  it('gains a participant, with the session’s id and user unless told', async () => {
    await sessions.register(registrar, registration('joined'))
    const answer = await sessions.addParticipant(registrar, joining('joined'))
    expect(answer).toMatchObject({ outcome: 'present', details: { sequence: '2', resourceOwner: 'o1' } })
    await sessions.addParticipant(registrar, { ...joining('joined'), sid: 's2', sub: 'p2' })
    expect(await clientsOf('joined')).toEqual([
      { client_id: 'rp', sid: 'joined', sub: 'u1' },
      { client_id: 'rp', sid: 's2', sub: 'p2' },
    ])
    const { rows } = await database.sql.query(`SELECT type, payload, actor_subject FROM session_events WHERE session_id = 'joined' AND sequence = 3`)
    expect(rows).toEqual([{ type: 'session.client.added', payload: { clientId: 'rp', sid: 's2', sub: 'p2' }, actor_subject: 'registrar' }])
  })

  it('answers the same participant again with the same details and no event', async () => {
    await sessions.register(registrar, registration('same'))
    const first = await sessions.addParticipant(registrar, joining('same'))
    expect(await sessions.addParticipant(registrar, joining('same'))).toEqual(first)
    expect(await eventsOf(database.sql, 'same')).toEqual(['session.added', 'session.client.added'])
  })

  it('corrects the sub of a participant, with an event', async () => {
    await sessions.register(registrar, registration('corrected'))
    await sessions.addParticipant(registrar, joining('corrected'))
    await sessions.addParticipant(registrar, { ...joining('corrected'), sub: 'pairwise' })
    expect(await clientsOf('corrected')).toEqual([{ client_id: 'rp', sid: 'corrected', sub: 'pairwise' }])
    expect(await eventsOf(database.sql, 'corrected')).toHaveLength(3)
  })

  it('makes one participant and one event of 20 concurrent calls, and 20 of 20 different ones', async () => {
    await sessions.register(registrar, registration('crowd'))
    await Promise.all(Array.from({ length: 20 }, () => sessions.addParticipant(registrar, joining('crowd'))))
    expect(await eventsOf(database.sql, 'crowd')).toEqual(['session.added', 'session.client.added'])
    await Promise.all(Array.from({ length: 20 }, (_, n) => sessions.addParticipant(registrar, joining('crowd', `c${n}`))))
    expect(await clientsOf('crowd')).toHaveLength(21)
    expect(await eventsOf(database.sql, 'crowd')).toHaveLength(22)
  })

  it('holds a thousand participants and not one more', async () => {
    await sessions.register(registrar, registration('full'))
    await database.sql.query(`INSERT INTO session_clients SELECT 'full', 'c' || n, 's', 'u' FROM generate_series(1, 1000) n`)
    await expect(sessions.addParticipant(registrar, joining('full'))).rejects.toMatchObject({ kind: 'invalid_argument' })
    expect(await sessions.addParticipant(registrar, { sessionId: 'full', clientId: 'c1', sid: 's', sub: 'u' })).toMatchObject({ outcome: 'present' })
    expect(await eventsOf(database.sql, 'full')).toEqual(['session.added'])
  })

  it('is not known to who does not speak for its issuer', async () => {
    await sessions.register(registrar, registration('theirs'))
    await expect(sessions.addParticipant({ ...registrar, issuers: ['https://other.example'] }, joining('theirs'))).rejects.toMatchObject({ kind: 'session_not_found' })
    await expect(sessions.addParticipant(registrar, joining('nowhere'))).rejects.toMatchObject({ kind: 'session_not_found' })
    expect(await clientsOf('theirs')).toEqual([])
  })
})

describe('a terminated session', () => {
  it('G5: stores a late participant and plans that it is told, once', async () => {
    await sessions.register(registrar, registration('late'))
    await terminateSessions(db, [command('late')])
    const before = await rowOf(database.sql, 'late')
    expect(await sessions.addParticipant(registrar, { ...joining('late'), sid: 's9' })).toEqual({
      outcome: 'terminated',
      wake: ['rp'],
      late: { commitId: expect.stringMatching(/^\d+$/), telling: null, session: expect.objectContaining({ sessionId: 'late', issuer: ISSUER, sids: ['s9'] }) },
    })
    expect(await deliveriesOf('late')).toEqual([{ receiver_id: 'rp', client_id: 'rp', sid: 's9', sub: 'u1', state: 'pending' }])
    expect(await sessions.addParticipant(registrar, { ...joining('late'), sid: 's9' })).toMatchObject({ outcome: 'terminated' })
    expect(await deliveriesOf('late')).toHaveLength(1)
    expect(await rowOf(database.sql, 'late')).toEqual(before)
    expect(await eventsOf(database.sql, 'late')).toEqual(['session.added', 'session.terminated'])
  })

  it('keeps a participant whom nobody can tell', async () => {
    await sessions.register(registrar, registration('silent'))
    await terminateSessions(db, [command('silent')])
    expect(await sessions.addParticipant(registrar, joining('silent', 'without-receiver'))).toEqual({ outcome: 'terminated', wake: [], late: null })
    expect(await clientsOf('silent')).toHaveLength(1)
  })

  it('G5: a participant added while the termination is not yet committed waits, and is told', async () => {
    await sessions.register(registrar, registration('waits'))
    const other = await database.sql.connect()
    await other.query('BEGIN')
    await other.query(`UPDATE sessions SET state = 'terminated', terminated_at = now(), sequence = sequence + 1 WHERE id = 'waits'`)
    await other.query(`INSERT INTO session_events (session_id, sequence, type, actor_issuer, actor_subject, resource_owner, created_at)
      VALUES ('waits', 2, 'session.terminated', 'i', 's', 'o1', now())`)
    const answer = sessions.addParticipant(registrar, joining('waits'))
    await someoneWaits()
    expect(await deliveriesOf('waits')).toEqual([])
    await other.query('COMMIT')
    other.release()
    expect(await answer).toEqual({ outcome: 'terminated', wake: ['rp'], late: null })
    expect(await deliveriesOf('waits')).toEqual([{ receiver_id: 'rp', client_id: 'rp', sid: 'waits', sub: 'u1', state: 'pending' }])
  })

  it('G5: a participant that races with the termination is in the session before it, or told after it', async () => {
    const late = await Promise.all(
      Array.from({ length: 40 }, async (_, n) => {
        const id = `race-${n}`
        await sessions.register(registrar, registration(id))
        const end = async (): Promise<void> => {
          const { answers } = await terminateSessions(db, [command(id)])
          if (answers[0]?.outcome === 'busy') await end()
        }
        const [answer] = await Promise.all([sessions.addParticipant(registrar, joining(id)), end()])
        const events = await eventsOf(database.sql, id)
        expect(await clientsOf(id)).toHaveLength(1)
        if (answer.outcome === 'present') expect(events).toEqual(['session.added', 'session.client.added', 'session.terminated'])
        else expect([events, (await deliveriesOf(id)).length]).toEqual([['session.added', 'session.terminated'], 1])
        return answer.outcome === 'terminated'
      }),
    )
    expect(late).toHaveLength(40)
  })

  it('says that it may be asked again where the termination does not end', async () => {
    await sessions.register(registrar, registration('stuck'))
    const other = await database.sql.connect()
    await other.query('BEGIN')
    await other.query(`SELECT FROM sessions WHERE id = 'stuck' FOR NO KEY UPDATE`)
    await expect(sessions.addParticipant(registrar, joining('stuck'))).rejects.toMatchObject({ kind: 'overloaded', status: 503 })
    await other.query('ROLLBACK')
    other.release()
    expect(await clientsOf('stuck')).toEqual([])
  })
})
