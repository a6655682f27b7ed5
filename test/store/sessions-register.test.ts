import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { hashSessionToken, newSessionToken } from '../../src/auth/session-token.ts'
import { openDatabase } from '../../src/store/postgres.ts'
import type { Database } from '../../src/store/postgres.ts'
import type { Registration } from '../../src/store/session-add.ts'
import { createSessionStore } from '../../src/store/sessions.ts'
import type { SessionStore } from '../../src/store/sessions.ts'
import { terminateSessions } from '../../src/store/terminations.ts'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'
import { eventsOf, registrar, registration, rowOf } from '../harness/registrations.ts'
import { ISSUER, command } from '../harness/seed.ts'

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

const inSeconds = (seconds: number): string => new Date(Date.now() + seconds * 1_000).toISOString()
const count = async (id: string): Promise<number> => (await database.sql.query('SELECT FROM sessions WHERE id = $1', [id])).rows.length

/** Waits until another connection of the store's waits for a lock. */
const someoneWaits = () =>
  vi.waitFor(async () => {
    const { rows } = await database.sql.query(
      `SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'curfew-test' AND wait_event_type = 'Lock'`,
    )
    expect(rows.length).toBeGreaterThan(0)
  }, { timeout: 10_000 })

describe('a new session', () => {
  it('is stored whole, with its participants and event 1 by the actor', async () => {
    const asked = registration('whole', {
      clients: [{ clientId: 'c1', sid: 's1', sub: 'p1' }, { clientId: 'c1', sid: 's2', sub: 'p1' }],
      userAgent: { fingerprintId: 'fp', ip: '2001:db8::1', description: 'Firefox "☃"' },
      metadata: { key: 'dmFsdWU=' },
      cacheKeys: ['sess:1', 'sess:2'],
      creationDate: '2026-01-02T03:04:05.678Z',
      authTime: '2026-01-02T03:04:00.000Z',
      expiry: { lifetimeMs: 3_600_000 },
    })
    const { added, details } = await sessions.register(registrar, asked)
    expect(added).toBe(true)
    expect(details).toEqual({ sequence: '1', changeDate: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/), resourceOwner: 'o1' })
    const changed = new Date(details.changeDate)
    expect(await rowOf(database.sql, 'whole')).toMatchObject({
      issuer: ISSUER, user_id: 'u1', resource_owner: 'o1', state: 'active', sequence: '1', creator_issuer: ISSUER, creator_subject: 'registrar',
      fingerprint_id: 'fp', ip_text: '2001:db8::1', user_agent: { description: 'Firefox "☃"' }, metadata: { key: 'dmFsdWU=' },
      cache_keys: ['sess:1', 'sess:2'], created_at: new Date('2026-01-02T03:04:05.678Z'), born: new Date('2026-01-02T03:04:00.000Z'),
      change_date: changed, expires_at: new Date(changed.getTime() + 3_600_000), terminated_at: null, token_hash: Buffer.from(asked.tokenHash),
    })
    const { rows: clients } = await database.sql.query(`SELECT client_id, sid, sub FROM session_clients WHERE session_id = 'whole' ORDER BY sid`)
    expect(clients).toEqual([{ client_id: 'c1', sid: 's1', sub: 'p1' }, { client_id: 'c1', sid: 's2', sub: 'p1' }])
    const { rows: events } = await database.sql.query(`SELECT * FROM session_events WHERE session_id = 'whole'`)
    expect(events).toMatchObject([{ sequence: '1', type: 'session.added', actor_subject: 'registrar', resource_owner: 'o1', created_at: changed, commit_id: null }])
    expect(JSON.stringify(events)).not.toContain(Buffer.from(asked.tokenHash).toString('hex'))
  })

  it('is born when it says so, else when it was created, else now', async () => {
    await sessions.register(registrar, registration('born-auth', { authTime: '2026-01-01T00:00:00.000Z', creationDate: '2026-01-02T00:00:00.000Z' }))
    await sessions.register(registrar, registration('born-created', { creationDate: '2026-01-02T00:00:00.000Z' }))
    const { details } = await sessions.register(registrar, registration('born-now'))
    expect(await rowOf(database.sql, 'born-auth')).toMatchObject({ born: new Date('2026-01-01T00:00:00.000Z') })
    expect(await rowOf(database.sql, 'born-created')).toMatchObject({ born: new Date('2026-01-02T00:00:00.000Z') })
    expect(await rowOf(database.sql, 'born-now')).toMatchObject({ born: new Date(details.changeDate), created_at: new Date(details.changeDate) })
  })

  it('lives the longest lifetime unless told', async () => {
    const { details } = await sessions.register(registrar, registration('longest'))
    expect(await rowOf(database.sql, 'longest')).toMatchObject({ expires_at: new Date(Date.parse(details.changeDate) + 30 * DAY_SECONDS * 1_000) })
  })

  it('is not born in the future, though its registrar’s clock may be 30 s ahead', async () => {
    const ahead = inSeconds(20)
    const { details } = await sessions.register(registrar, registration('ahead', { creationDate: ahead, authTime: ahead }))
    expect(await rowOf(database.sql, 'ahead')).toMatchObject({ born: new Date(details.changeDate), created_at: new Date(details.changeDate) })
  })

  it.each<[string, Partial<Registration>, RegExp]>([
    ['created in the future', { creationDate: inSeconds(3_600) }, /^creationDate/],
    ['authenticated in the future', { authTime: inSeconds(3_600) }, /^authTime/],
    ['expired', { expiry: { at: '2026-01-01T00:00:00.000Z' } }, /^expirationDate/],
    ['to live too long by its date', { expiry: { at: inSeconds(31 * DAY_SECONDS) } }, /longest lifetime/],
    ['to live too long by its lifetime', { expiry: { lifetimeMs: 30 * DAY_SECONDS * 1_000 + 1 } }, /longest lifetime/],
  ])('is refused when it is %s, and nothing is written', async (name, change, says) => {
    await expect(sessions.register(registrar, registration(name, change))).rejects.toMatchObject({ kind: 'invalid_argument', says: expect.stringMatching(says) })
    expect(await count(name)).toBe(0)
    expect(await eventsOf(database.sql, name)).toEqual([])
  })
})

describe('an id that is taken', () => {
  it('gives the identical registration a new token, and the old one fails', async () => {
    const asked = registration('again')
    await sessions.register(registrar, asked)
    const { token, hash } = newSessionToken()
    const { added, details } = await sessions.register(registrar, { ...asked, tokenHash: hash })
    expect(added).toBe(false)
    expect(details).toMatchObject({ sequence: '2', resourceOwner: 'o1' })
    expect(await rowOf(database.sql, 'again')).toMatchObject({ token_hash: hashSessionToken(token), change_date: new Date(details.changeDate) })
    expect(await eventsOf(database.sql, 'again')).toEqual(['session.added', 'session.token.rotated'])
  })

  it('refuses another registration and changes nothing', async () => {
    await sessions.register(registrar, registration('other'))
    const before = await rowOf(database.sql, 'other')
    await expect(sessions.register(registrar, registration('other', { userId: 'u2' }))).rejects.toMatchObject({ kind: 'session_exists' })
    expect(await rowOf(database.sql, 'other')).toEqual(before)
  })

  it('is only said to be taken where it belongs to an issuer that the registrar does not speak for, live or ended', async () => {
    const foreigner = { actor: { issuer: 'https://other.example', subject: 'x' }, issuers: ['https://other.example'] }
    const asked = registration('theirs')
    await sessions.register(registrar, asked)
    await expect(sessions.register(foreigner, asked)).rejects.toMatchObject({ kind: 'session_exists' })
    await terminateSessions(db, [command('theirs')])
    await expect(sessions.register(foreigner, asked)).rejects.toMatchObject({ kind: 'session_exists' })
  })

  it('G2: is refused for good once its session is terminated', async () => {
    const asked = registration('ended')
    await sessions.register(registrar, asked)
    await terminateSessions(db, [command('ended')])
    await expect(sessions.register(registrar, asked)).rejects.toMatchObject({ kind: 'session_terminated' })
    await expect(sessions.register(registrar, registration('ended', { userId: 'u9' }))).rejects.toMatchObject({ kind: 'session_terminated' })
    expect(await rowOf(database.sql, 'ended')).toMatchObject({ state: 'terminated', sequence: '2' })
    expect(await eventsOf(database.sql, 'ended')).toEqual(['session.added', 'session.terminated'])
  })

  it('does not prolong an expired session when its identical registration comes again', async () => {
    const asked = registration('short', { expiry: { lifetimeMs: 1 } })
    await sessions.register(registrar, asked)
    const before = await rowOf(database.sql, 'short')
    await sessions.register(registrar, asked)
    expect((await rowOf(database.sql, 'short'))?.['expires_at']).toEqual(before?.['expires_at'])
  })
})

describe('many at once', () => {
  it('makes one session of 50 concurrent registrations of one id, and the last token is the good one', async () => {
    const asked = registration('crowd')
    const tokens = Array.from({ length: 50 }, newSessionToken)
    const answers = await Promise.all(
      tokens.map(async ({ token, hash }) => ({ token, ...(await sessions.register(registrar, { ...asked, tokenHash: hash })) })),
    )
    expect(answers.filter(({ added }) => added)).toHaveLength(1)
    const sequences = answers.map(({ details }) => Number(details.sequence)).sort((one, other) => one - other)
    expect(sequences).toEqual(Array.from({ length: 50 }, (_, at) => at + 1))
    const last = answers.find(({ details }) => details.sequence === '50')
    expect((await rowOf(database.sql, 'crowd'))?.['token_hash']).toEqual(hashSessionToken(last?.token ?? ''))
    expect(await eventsOf(database.sql, 'crowd')).toEqual(['session.added', ...Array<string>(49).fill('session.token.rotated')])
  })

  it('G2: a registration that races with the termination never revives the session, and sequences stay dense', async () => {
    await Promise.all(
      Array.from({ length: 40 }, async (_, n) => {
        const asked = registration(`race-${n}`)
        await sessions.register(registrar, asked)
        const end = async (): Promise<void> => {
          const { answers } = await terminateSessions(db, [command(asked.id)])
          if (answers[0]?.outcome === 'busy') await end()
        }
        const results = await Promise.allSettled([sessions.register(registrar, asked), end(), sessions.register(registrar, asked)])
        for (const result of results) {
          if (result.status === 'rejected') expect(result.reason).toMatchObject({ kind: 'session_terminated' })
        }
        expect(await rowOf(database.sql, asked.id)).toMatchObject({ state: 'terminated' })
        expect((await eventsOf(database.sql, asked.id)).at(-1)).toBe('session.terminated')
      }),
    )
  })

  it('G2: a registration that waits for an uncommitted termination is refused when it commits', async () => {
    const asked = registration('waits')
    await sessions.register(registrar, asked)
    const other = await database.sql.connect()
    await other.query('BEGIN')
    await other.query(`UPDATE sessions SET state = 'terminated', terminated_at = now(), sequence = sequence + 1 WHERE id = 'waits'`)
    const refused = sessions.register(registrar, asked).catch((error: unknown) => error)
    await someoneWaits()
    await other.query('COMMIT')
    other.release()
    expect(await refused).toMatchObject({ kind: 'session_terminated' })
    expect(await rowOf(database.sql, 'waits')).toMatchObject({ state: 'terminated', sequence: '2' })
  })

  it('waits for an uncommitted registration of the same id, and takes its place when it is rolled back', async () => {
    const other = await database.sql.connect()
    await other.query('BEGIN')
    await other.query(`INSERT INTO sessions (id, issuer, user_id, resource_owner, sequence, registration_hash, creator_issuer, creator_subject, born, created_at, change_date, expires_at)
      VALUES ('rolled', 'i', 'u', 'o', 1, 'h', 'i', 's', now(), now(), now(), now())`)
    const registered = sessions.register(registrar, registration('rolled'))
    await someoneWaits()
    await other.query('ROLLBACK')
    other.release()
    expect(await registered).toMatchObject({ added: true, details: { sequence: '1' } })
  })

  it('says that it may be asked again where the row stays locked', async () => {
    const asked = registration('locked')
    await sessions.register(registrar, asked)
    const other = await database.sql.connect()
    await other.query('BEGIN')
    await other.query(`SELECT FROM sessions WHERE id = 'locked' FOR UPDATE`)
    await expect(sessions.register(registrar, asked)).rejects.toMatchObject({ kind: 'overloaded', status: 503, retryAfterSeconds: 1 })
    await other.query('ROLLBACK')
    other.release()
    expect(await eventsOf(database.sql, 'locked')).toEqual(['session.added'])
  })
})

describe('a batch', () => {
  it('registers a thousand in the order of the call', async () => {
    const asked = Array.from({ length: 1_000 }, (_, n) => registration(`batch-${n}`, { userId: `u${n}`, clients: [{ clientId: 'c', sid: `batch-${n}`, sub: `u${n}` }] }))
    const answers = await sessions.registerMany(registrar, asked)
    expect(answers).toHaveLength(1_000)
    expect(answers.every(({ added, details }) => added && details.sequence === '1')).toBe(true)
    const { rows } = await database.sql.query(
      `SELECT count(*)::int AS whole FROM sessions s JOIN session_events e ON e.session_id = s.id AND e.sequence = 1
       JOIN session_clients c ON c.session_id = s.id AND c.sub = s.user_id WHERE s.id LIKE 'batch-%'`,
    )
    expect(rows).toEqual([{ whole: 1_000 }])
  })

  it('G12: writes nothing where one is bad, and names it', async () => {
    await sessions.register(registrar, registration('taken'))
    await sessions.register(registrar, registration('over'))
    await terminateSessions(db, [command('over')])
    const bad = [
      [registration('taken', { userId: 'another' }), 'session_exists'],
      [registration('over'), 'session_terminated'],
      [registration('late', { creationDate: inSeconds(3_600) }), 'invalid_argument'],
    ] as const
    for (const [one, kind] of bad) {
      const asked = [registration('good-1'), one, registration('good-2')]
      await expect(sessions.registerMany(registrar, asked)).rejects.toMatchObject({ kind, says: expect.stringMatching(/^sessions\[1\]: /) })
    }
    expect([await count('good-1'), await count('good-2'), await count('late')]).toEqual([0, 0, 0])
    expect(await eventsOf(database.sql, 'taken')).toEqual(['session.added'])
  })

  it('can be repeated: what is there gets a new token', async () => {
    const asked = ['repeat-1', 'repeat-2'].map((id) => registration(id))
    await sessions.registerMany(registrar, asked.slice(0, 1))
    expect(await sessions.registerMany(registrar, asked)).toMatchObject([
      { added: false, details: { sequence: '2' } },
      { added: true, details: { sequence: '1' } },
    ])
  })

  it('overlaps with others and with terminations without a deadlock', async () => {
    const asked = Array.from({ length: 60 }, (_, n) => registration(`overlap-${String(n).padStart(2, '0')}`))
    const shuffled = (seed: number) => [...asked].sort((one, other) => ((one.id.charCodeAt(9) * seed) % 7) - ((other.id.charCodeAt(9) * seed) % 7))
    const results = await Promise.allSettled(
      Array.from({ length: 12 }, (_, n) =>
        n % 4 === 3 ? terminateSessions(db, asked.slice(0, 5).map(({ id }) => command(id))) : sessions.registerMany(registrar, shuffled(n + 1)),
      ),
    )
    for (const result of results) {
      if (result.status === 'rejected') expect(result.reason).toMatchObject({ kind: 'session_terminated' })
    }
    for (const { id } of asked) expect((await eventsOf(database.sql, id)).filter((type) => type === 'session.added').length).toBeLessThanOrEqual(1)
  })
})
