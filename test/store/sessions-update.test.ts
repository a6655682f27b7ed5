import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { hashSessionToken, newSessionToken } from '../../src/auth/session-token.ts'
import { openDatabase } from '../../src/store/postgres.ts'
import type { Database } from '../../src/store/postgres.ts'
import type { SessionChange } from '../../src/store/session-update.ts'
import { createSessionStore } from '../../src/store/sessions.ts'
import type { SessionStore } from '../../src/store/sessions.ts'
import { terminateSessions } from '../../src/store/terminations.ts'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'
import { eventsOf, registrar, registration, rowOf } from '../harness/registrations.ts'
import { command } from '../harness/seed.ts'

const DAY_SECONDS = 86_400
let database: TestDatabase
let db: Database
let sessions: SessionStore

beforeAll(async () => {
  database = await createDatabase()
  db = openDatabase({ url: database.url, name: 'test', max: 10 })
  sessions = createSessionStore({ db, maxLifetimeSeconds: 30 * DAY_SECONDS, maxTokenLifetimeSeconds: DAY_SECONDS })
})
afterAll(async () => {
  await db.$disconnect()
  await database.drop()
})

const change = (id: string, changed: Partial<SessionChange> = {}): SessionChange => ({
  id,
  metadata: null,
  userAgent: null,
  expiry: null,
  tokenHash: newSessionToken().hash,
  ...changed,
})

describe('an update', () => {
  it('merges metadata, deletes the keys with empty values, and leaves the rest alone', async () => {
    const agent = { fingerprintId: 'fp', ip: '10.0.0.1', description: null }
    await sessions.register(registrar, registration('merge', { metadata: { keep: 'MQ==', change: 'Mg==', drop: 'Mw==' }, userAgent: agent }))
    const before = await rowOf(database.sql, 'merge')
    const details = await sessions.update(registrar, change('merge', { metadata: { change: 'WA==', drop: '', add: 'WQ==' } }))
    const after = await rowOf(database.sql, 'merge')
    expect(after?.['metadata']).toEqual({ keep: 'MQ==', change: 'WA==', add: 'WQ==' })
    expect(after).toEqual({ ...before, metadata: after?.['metadata'], sequence: '2', token_hash: after?.['token_hash'], change_date: new Date(details.changeDate) })
    const { rows } = await database.sql.query(`SELECT type, payload FROM session_events WHERE session_id = 'merge' AND sequence = 2`)
    expect(rows).toEqual([{ type: 'session.updated', payload: { changed: ['metadata'] } }])
  })

  it('replaces the whole user agent', async () => {
    await sessions.register(registrar, registration('agent', { userAgent: { fingerprintId: 'fp', ip: '10.0.0.1', description: 'old' } }))
    await sessions.update(registrar, change('agent', { userAgent: { fingerprintId: null, ip: '::1', description: null } }))
    expect(await rowOf(database.sql, 'agent')).toMatchObject({ fingerprint_id: null, ip_text: '::1', user_agent: { description: null } })
  })

  it('moves the expiry, by a date or by a lifetime from now', async () => {
    await sessions.register(registrar, registration('expiry', { expiry: { lifetimeMs: 60_000 } }))
    const at = new Date(Date.now() + 86_400_000).toISOString()
    await sessions.update(registrar, change('expiry', { expiry: { at } }))
    expect(await rowOf(database.sql, 'expiry')).toMatchObject({ expires_at: new Date(at) })
    const { changeDate } = await sessions.update(registrar, change('expiry', { expiry: { lifetimeMs: 5_000 } }))
    expect(await rowOf(database.sql, 'expiry')).toMatchObject({ expires_at: new Date(Date.parse(changeDate) + 5_000) })
  })

  it('rotates the token each time, also when nothing is named', async () => {
    await sessions.register(registrar, registration('rotate'))
    const { token, hash } = newSessionToken()
    expect(await sessions.update(registrar, change('rotate', { tokenHash: hash }))).toMatchObject({ sequence: '2', resourceOwner: 'o1' })
    expect((await rowOf(database.sql, 'rotate'))?.['token_hash']).toEqual(hashSessionToken(token))
    expect(await eventsOf(database.sql, 'rotate')).toEqual(['session.added', 'session.token.rotated'])
  })

  it('is refused where metadata would grow too large, and nothing changes', async () => {
    await sessions.register(registrar, registration('large', { metadata: { a: 'x'.repeat(12_000) } }))
    await expect(sessions.update(registrar, change('large', { metadata: { b: 'x'.repeat(12_000) } }))).rejects.toMatchObject({ kind: 'invalid_argument' })
    const many = Object.fromEntries(Array.from({ length: 64 }, (_, n) => [`k${n}`, 'MQ==']))
    await expect(sessions.update(registrar, change('large', { metadata: many }))).rejects.toMatchObject({ kind: 'invalid_argument' })
    expect(await eventsOf(database.sql, 'large')).toEqual(['session.added'])
    await sessions.update(registrar, change('large', { metadata: { ...many, a: '' } }))
    expect(Object.keys((await rowOf(database.sql, 'large'))?.['metadata'] as object)).toHaveLength(64)
  })

  it('is refused for an expiry that is past or beyond the longest lifetime', async () => {
    await sessions.register(registrar, registration('bounds'))
    for (const expiry of [{ at: '2026-01-01T00:00:00.000Z' }, { lifetimeMs: 30 * DAY_SECONDS * 1_000 + 1 }]) {
      await expect(sessions.update(registrar, change('bounds', { expiry }))).rejects.toMatchObject({ kind: 'invalid_argument' })
    }
  })

  it('does not prolong an expired session', async () => {
    await sessions.register(registrar, registration('expired'))
    await database.sql.query(`UPDATE sessions SET expires_at = now() WHERE id = 'expired'`)
    await expect(sessions.update(registrar, change('expired', { expiry: { lifetimeMs: 1_000 } }))).rejects.toMatchObject({ kind: 'session_expired' })
    await expect(sessions.update(registrar, change('expired'))).rejects.toMatchObject({ kind: 'session_expired' })
  })

  it('does not know a session of an issuer that the writer does not speak for, nor one that is not there', async () => {
    await sessions.register(registrar, registration('theirs'))
    const foreigner = { ...registrar, issuers: ['https://other.example'] }
    await expect(sessions.update(foreigner, change('theirs'))).rejects.toMatchObject({ kind: 'session_not_found' })
    await expect(sessions.update(registrar, change('nowhere'))).rejects.toMatchObject({ kind: 'session_not_found' })
  })

  it('G2: does not change a terminated session', async () => {
    await sessions.register(registrar, registration('ended'))
    await terminateSessions(db, [command('ended')])
    const before = await rowOf(database.sql, 'ended')
    await expect(sessions.update(registrar, change('ended', { metadata: { a: 'MQ==' } }))).rejects.toMatchObject({ kind: 'session_terminated' })
    expect(await rowOf(database.sql, 'ended')).toEqual(before)
  })
})

describe('updates at once', () => {
  it('each is an event with the next sequence, and dates never go backwards', async () => {
    await sessions.register(registrar, registration('crowd'))
    await Promise.all(Array.from({ length: 30 }, (_, n) => sessions.update(registrar, change('crowd', { metadata: { [`k${n}`]: 'MQ==' } }))))
    expect(await eventsOf(database.sql, 'crowd')).toHaveLength(31)
    expect(Object.keys((await rowOf(database.sql, 'crowd'))?.['metadata'] as object)).toHaveLength(30)
    const { rows } = await database.sql.query(
      `SELECT FROM session_events e JOIN session_events f ON f.session_id = e.session_id AND f.sequence = e.sequence + 1
       WHERE e.session_id = 'crowd' AND f.created_at < e.created_at`,
    )
    expect(rows).toHaveLength(0)
  })

  it('G2: with terminations in between, the termination is the last event', async () => {
    await Promise.all(
      Array.from({ length: 30 }, async (_, n) => {
        const id = `race-${n}`
        await sessions.register(registrar, registration(id))
        const end = async (): Promise<void> => {
          const { answers } = await terminateSessions(db, [command(id)])
          if (answers[0]?.outcome === 'busy') await end()
        }
        const results = await Promise.allSettled([sessions.update(registrar, change(id)), end(), sessions.update(registrar, change(id))])
        for (const result of results) {
          if (result.status === 'rejected') expect(result.reason).toMatchObject({ kind: 'session_terminated' })
        }
        expect((await eventsOf(database.sql, id)).at(-1)).toBe('session.terminated')
      }),
    )
  })
})
