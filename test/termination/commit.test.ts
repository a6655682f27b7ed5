import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { openDatabase } from '../../src/store/postgres.ts'
import { changedNothing } from '../../src/store/postgres-failures.ts'
import type { Database } from '../../src/store/postgres.ts'
import { createSessionStore } from '../../src/store/sessions.ts'
import { readTerminated, terminateSessions } from '../../src/store/terminations.ts'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'
import { command, ISSUER, seedSessions } from '../harness/seed.ts'

let database: TestDatabase
let db: Database

beforeAll(async () => {
  database = await createDatabase()
  db = openDatabase({ url: database.url, name: 'test', max: 10 })
})
afterAll(async () => {
  await db.$disconnect()
  await database.drop()
})
beforeEach(() => database.sql.query('TRUNCATE sessions, session_clients, session_events, commits'))

const events = async (id: string) =>
  (await database.sql.query<{ type: string; sequence: string; created_at: Date; commit_id: string | null }>('SELECT * FROM session_events WHERE session_id = $1 ORDER BY sequence', [id])).rows

describe('the commit of a batch', () => {
  it('G1: answers with the details of the committed event', async () => {
    await seedSessions(database.sql, [{ id: 's1', resourceOwner: 'o7' }])
    const { answers, ended, commitId } = await terminateSessions(db, [command('s1', { mode: 'revoke', reason: 'stolen' })])
    const [, event] = await events('s1')
    expect(answers).toEqual([{ outcome: 'ended', details: { sequence: '2', changeDate: event?.created_at.toISOString(), resourceOwner: 'o7' } }])
    expect(event).toMatchObject({ type: 'session.terminated', sequence: '2', mode: 'revoke', reason: 'stolen', actor_subject: 'admin', commit_id: commitId })
    expect(ended).toMatchObject([{ sessionId: 's1', issuer: ISSUER }])
  })

  it('G2: knows the sid of a participant that joined when its statement had begun and had not locked the session yet', async () => {
    await seedSessions(database.sql, [{ id: 's1', clients: [{ clientId: 'shop', sid: 's1/shop' }] }])
    // A row filter that waits: the statement has its snapshot by then, and no lock. Superusers pass it.
    const role = `filtered_${randomBytes(6).toString('hex')}`
    await database.sql.query(`
      CREATE FUNCTION wait_here() RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN true; END';
      ALTER TABLE sessions ENABLE ROW LEVEL SECURITY;
      CREATE POLICY waits ON sessions USING (wait_here());
      CREATE ROLE ${role} LOGIN PASSWORD 'test';
      GRANT ALL ON ALL TABLES IN SCHEMA public TO ${role}; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO ${role}`)
    const url = new URL(database.url)
    Object.assign(url, { username: role, password: 'test' })
    const filtered = openDatabase({ url: url.href, name: 'filtered', max: 1, lockTimeoutMs: 10_000, statementTimeoutMs: 10_000 })
    const holder = await database.sql.connect()
    await holder.query('BEGIN; SELECT pg_advisory_xact_lock(42)')
    const committing = terminateSessions(filtered, [command('s1')])
    await expect.poll(async () => (await database.sql.query(`SELECT FROM pg_stat_activity WHERE datname = current_database() AND usename = $1 AND wait_event = 'advisory'`, [role])).rowCount).toBe(1)
    const joined = await createSessionStore({ db, maxLifetimeSeconds: 60, maxTokenLifetimeSeconds: 60 })
      .addParticipant({ actor: { issuer: ISSUER, subject: 'registrar' }, issuers: [ISSUER] }, { sessionId: 's1', clientId: 'app', sid: 's1/app', sub: null })
    expect(joined).toMatchObject({ outcome: 'present', details: { sequence: '2' } })
    await holder.query('COMMIT')
    holder.release()
    const { answers, ended } = await committing
    await filtered.$disconnect()
    await database.sql.query(`ALTER TABLE sessions DISABLE ROW LEVEL SECURITY; DROP POLICY waits ON sessions; DROP OWNED BY ${role}; DROP ROLE ${role}`)
    expect(answers).toMatchObject([{ outcome: 'ended', details: { sequence: '3' } }])
    expect(ended[0]?.sids.toSorted()).toEqual(['s1/app', 's1/shop'])
  })

  it('G3: asking again gives the first details and writes nothing', async () => {
    await seedSessions(database.sql, [{ id: 's1' }])
    const first = await terminateSessions(db, [command('s1')])
    const again = await terminateSessions(db, [command('s1', { mode: 'revoke' }), command('s1')])
    const details = (first.answers[0] as { details: unknown }).details
    expect(again.answers).toEqual([{ outcome: 'before', details }, { outcome: 'before', details }])
    expect(again.commitId).toBeNull()
    expect(await events('s1')).toHaveLength(2)
    expect((await database.sql.query('SELECT * FROM commits')).rowCount).toBe(1)
  })

  it('G3: the same session twice in a batch is one event, with the first asker as its actor', async () => {
    await seedSessions(database.sql, [{ id: 's1' }])
    const { answers } = await terminateSessions(db, [command('s1', { actor: { issuer: ISSUER, subject: 'first' } }), command('s1')])
    expect(answers.map(({ outcome }) => outcome)).toEqual(['ended', 'before'])
    expect(await events('s1')).toMatchObject([{}, { actor_subject: 'first' }])
  })

  it('G6: a session of an issuer beyond the asker is as unknown as none', async () => {
    await seedSessions(database.sql, [{ id: 'theirs', issuer: 'https://other.example' }])
    const { answers, commitId } = await terminateSessions(db, [command('theirs'), command('none')])
    expect(answers).toEqual([{ outcome: 'unknown' }, { outcome: 'unknown' }])
    expect(commitId).toBeNull()
    expect(await readTerminated(db, [command('theirs'), command('none')])).toEqual([null, null])
  })

  it('G6: askers of different reach in one batch are judged apart', async () => {
    await seedSessions(database.sql, [{ id: 's1' }])
    const { answers } = await terminateSessions(db, [command('s1', { issuers: ['https://other.example'] }), command('s1')])
    expect(answers.map(({ outcome }) => outcome)).toEqual(['unknown', 'ended'])
    expect(await events('s1')).toMatchObject([{}, { actor_subject: 'admin' }])
  })

  it('ends an expired session', async () => {
    await seedSessions(database.sql, [{ id: 's1', expiresInSeconds: -60 }])
    expect((await terminateSessions(db, [command('s1')])).answers[0]?.outcome).toBe('ended')
  })

  it('G8: a row that someone else holds is busy, and delays no other', async () => {
    await seedSessions(database.sql, [{ id: 's1' }, { id: 's2' }, { id: 's3' }])
    const holder = await database.sql.connect()
    await holder.query('BEGIN')
    await holder.query(`SELECT FROM sessions WHERE id = 's2' FOR UPDATE`)
    const { answers } = await terminateSessions(db, ['s1', 's2', 's3'].map((id) => command(id)))
    expect(answers.map(({ outcome }) => outcome)).toEqual(['ended', 'busy', 'ended'])
    await holder.query('ROLLBACK')
    holder.release()
    expect((await terminateSessions(db, [command('s2')])).answers[0]?.outcome).toBe('ended')
  })

  it('G2: no later write changes or revives a terminated session', async () => {
    await seedSessions(database.sql, [{ id: 's1' }])
    await terminateSessions(db, [command('s1')])
    await expect(database.sql.query(`UPDATE sessions SET state = 'active', terminated_at = NULL WHERE id = 's1'`)).rejects.toThrow(/is terminated/)
    await expect(database.sql.query(`UPDATE sessions SET sequence = 9 WHERE id = 's1'`)).rejects.toThrow(/is terminated/)
  })

  it('reads what is committed without ending anything', async () => {
    await seedSessions(database.sql, [{ id: 's1' }, { id: 's2' }])
    const { answers } = await terminateSessions(db, [command('s1')])
    expect(await readTerminated(db, [command('s2'), command('s1')])).toEqual([null, { outcome: 'before', details: (answers[0] as { details: unknown }).details }])
    expect(await events('s2')).toHaveLength(1)
  })

  it('keeps a date from going backwards when the row changed after the statement began', async () => {
    await seedSessions(database.sql, [{ id: 's1' }])
    await database.sql.query(`UPDATE sessions SET change_date = now() + interval '1 hour'`)
    await terminateSessions(db, [command('s1')])
    const { rows } = await database.sql.query(`SELECT change_date > now() + interval '59 minutes' AS kept FROM sessions`)
    expect(rows).toEqual([{ kept: true }])
  })

  it('says of a refused statement that it changed nothing, and of a cut connection that nothing is known', async () => {
    expect(changedNothing(await db.$queryRawUnsafe(`SELECT 1/0`).catch((error: unknown) => error))).toBe(true)
    const cut = db.$queryRawUnsafe(`SELECT pg_sleep(2)`).catch((error: unknown) => error)
    await expect.poll(async () => (await database.sql.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'SELECT pg_sleep(2)%'`)).rowCount).toBeGreaterThan(0)
    expect(changedNothing(await cut)).toBe(false)
  })
})

describe('under races', () => {
  const rotate = (id: string) =>
    database.sql.query(
      `WITH r AS (UPDATE sessions SET sequence = sequence + 1, change_date = greatest(date_trunc('milliseconds', now()), change_date), token_hash = 'x'
         WHERE id = $1 AND state = 'active' RETURNING id, sequence, change_date, resource_owner)
       INSERT INTO session_events (session_id, sequence, type, actor_issuer, actor_subject, resource_owner, created_at)
       SELECT id, sequence, 'session.token.rotated', '', '', resource_owner, change_date FROM r`,
      [id],
    )

  it('G3: overlapping batches and concurrent token rotations lose nothing and answer alike', async () => {
    const ids = Array.from({ length: 120 }, (_, n) => `r${n}`)
    await seedSessions(database.sql, ids.map((id) => ({ id })))
    const told = new Map<string, Set<string>>()
    let random = 7
    const next = (bound: number) => (random = (random * 1_103_515_245 + 12_345) % 2_147_483_648) % bound
    const ending = async () => {
      let open = Array.from({ length: 60 }, () => command(ids[next(ids.length)] ?? ''))
      while (open.length > 0) {
        const { answers } = await terminateSessions(db, open)
        answers.forEach((answer, at) => {
          if (!('details' in answer)) return
          const id = open[at]?.sessionId ?? ''
          told.set(id, (told.get(id) ?? new Set()).add(JSON.stringify(answer.details)))
        })
        open = open.filter((_, at) => answers[at]?.outcome === 'busy')
      }
    }
    const rotating = async () => {
      for (let n = 0; n < 60; n++) await rotate(ids[next(ids.length)] ?? '')
    }
    await Promise.all([...Array.from({ length: 12 }, ending), rotating(), rotating(), rotating()])
    for (const [id, answers] of told) {
      const own = await events(id)
      expect(own.map(({ sequence }) => sequence)).toEqual(own.map((_, n) => String(n + 1)))
      expect(own.filter(({ type }) => type === 'session.terminated')).toHaveLength(1)
      const last = own.at(-1)
      expect(last?.type).toBe('session.terminated')
      expect([...answers]).toEqual([JSON.stringify({ sequence: last?.sequence, changeDate: last?.created_at.toISOString(), resourceOwner: 'o1' })])
    }
    const { rows } = await database.sql.query(`SELECT (SELECT sum(sessions) FROM commits)::int AS said, (SELECT count(*) FROM session_events WHERE type = 'session.terminated')::int AS done`)
    expect(rows[0].said).toBe(rows[0].done)
  })
})
