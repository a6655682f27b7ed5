import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createRoute } from '../../src/outbox/route.ts'
import { planLateParticipant, readSettled } from '../../src/store/deliveries.ts'
import { openDatabase } from '../../src/store/postgres.ts'
import { deleteReceiver } from '../../src/store/receivers.ts'
import { routeCommits } from '../../src/store/routing.ts'
import { terminateSessions } from '../../src/store/terminations.ts'
import { MAX_TOKEN_LIFETIME_SECONDS, openGround } from '../delivery/ground.ts'
import type { Ground } from '../delivery/ground.ts'
import { ISSUER, command, seedSessions } from '../harness/seed.ts'

const url = 'https://rp.example/logout'

describe('routing commits', () => {
  let ground: Ground
  beforeAll(async () => { ground = await openGround() })
  afterAll(() => ground.close())

  const routed = async (sessionId: string): Promise<string[]> => {
    const { rows } = await ground.sql.query<{ receiver_id: string }>(
      'SELECT receiver_id FROM deliveries WHERE session_id = $1 ORDER BY receiver_id', [sessionId])
    return rows.map(({ receiver_id }) => receiver_id)
  }
  const unrouted = async (): Promise<number> =>
    (await ground.sql.query('SELECT FROM commits WHERE routed_at IS NULL')).rowCount ?? 0
  const routeAll = async (): Promise<string[]> => {
    const woken: string[] = []
    await createRoute({ db: ground.db, wakeReceiver: (id) => void woken.push(id), maxTokenLifetimeSeconds: MAX_TOKEN_LIFETIME_SECONDS })()
    return woken
  }

  it('plans one delivery for each receiver of each participant, and wakes each receiver', async () => {
    await ground.put('match-a', { url, clientId: 'm1' })
    await ground.put('match-b', { url, clientId: 'm1' })
    await ground.put('match-c', { url, clientId: 'm2' })
    await seedSessions(ground.sql, [{ id: 'match', clients: [{ clientId: 'm1', sid: 'x' }, { clientId: 'm2' }, { clientId: 'nobody' }] }])
    await terminateSessions(ground.db, [command('match')])
    expect((await routeAll()).toSorted()).toEqual(['match-a', 'match-b', 'match-c'])
    expect(await routed('match')).toEqual(['match-a', 'match-b', 'match-c'])
    const { rows } = await ground.sql.query('SELECT client_id, sid, sub, issuer, state::text FROM deliveries WHERE receiver_id = $1', ['match-a'])
    expect(rows).toEqual([{ client_id: 'm1', sid: 'x', sub: 'u1', issuer: ISSUER, state: 'pending' }])
  })

  it('G6: tells no receiver of another issuer, client or organization', async () => {
    await ground.put('same', { url, clientId: 's' })
    await ground.put('own-org', { url, clientId: 's', resourceOwner: 'o1' })
    await ground.put('other-org', { url, clientId: 's', resourceOwner: 'o2' })
    await ground.put('other-client', { url, clientId: 't' })
    await ground.sql.query(`INSERT INTO receivers (id, type, url, issuer, client_id) VALUES ('other-issuer', 'backchannel_logout', $1, 'https://else', 's')`, [url])
    await seedSessions(ground.sql, [{ id: 'scoped', clients: [{ clientId: 's' }] }])
    await terminateSessions(ground.db, [command('scoped')])
    await routeAll()
    expect(await routed('scoped')).toEqual(['own-org', 'same'])
  })

  it('gives a disabled receiver its deliveries, for when it is switched on', async () => {
    await ground.put('paused', { url, clientId: 'p', enabled: false })
    await ground.endSessions('paused', 3, 'p')
    expect(await ground.states('paused')).toEqual({ pending: 3 })
  })

  it('is moot when the session and every token of it would have expired by themselves', async () => {
    await ground.put('moot', { url, clientId: 'moot' })
    await seedSessions(ground.sql, [
      { id: 'moot-short', expiresInSeconds: 60, clients: [{ clientId: 'moot' }] },
      { id: 'moot-long', expiresInSeconds: 1_000_000, clients: [{ clientId: 'moot' }] },
    ])
    await terminateSessions(ground.db, [command('moot-short'), command('moot-long')])
    await routeAll()
    const { rows } = await ground.sql.query(
      `SELECT d.session_id, d.moot_at = s.expires_at AS at_expiry, d.moot_at = s.terminated_at + interval '86400 s' AS after_tokens
       FROM deliveries d JOIN sessions s ON s.id = d.session_id WHERE d.receiver_id = 'moot' ORDER BY 1`)
    expect(rows).toEqual([
      { session_id: 'moot-long', at_expiry: true, after_tokens: false },
      { session_id: 'moot-short', at_expiry: false, after_tokens: true },
    ])
  })

  it('shares the work between routers that run at once, and plans nothing twice', async () => {
    await ground.put('shared', { url, clientId: 'shared' })
    const ids = Array.from({ length: 600 }, (_, at) => `shared-${at}`)
    await seedSessions(ground.sql, ids.map((id) => ({ id, clients: [{ clientId: 'shared' }] })))
    for (let from = 0; from < ids.length; from += 2) await terminateSessions(ground.db, ids.slice(from, from + 2).map((id) => command(id)))
    await Promise.all([routeAll(), routeAll(), routeAll(), routeAll()])
    expect(await ground.states('shared')).toEqual({ pending: 600 })
    expect(await unrouted()).toBe(0)
  })

  it('hands on a commit with a lower id that lands after higher ids were routed', async () => {
    await ground.put('late', { url, clientId: 'late' })
    await seedSessions(ground.sql, [{ id: 'low', clients: [{ clientId: 'late' }] }, { id: 'high', clients: [{ clientId: 'late' }] }])
    const slow = await ground.sql.connect()
    await slow.query('BEGIN')
    await slow.query(`WITH s AS (UPDATE sessions SET state = 'terminated', terminated_at = now(), sequence = 2 WHERE id = 'low' RETURNING id),
      c AS (INSERT INTO commits (sessions) VALUES (1) RETURNING id)
      INSERT INTO session_events (session_id, sequence, type, actor_issuer, actor_subject, commit_id, resource_owner, created_at)
      SELECT s.id, 2, 'session.terminated', 'i', 'a', c.id, 'o1', now() FROM s, c`)
    await terminateSessions(ground.db, [command('high')])
    await routeAll()
    expect(await routed('high')).toEqual(['late'])
    expect(await routed('low')).toEqual([])
    await slow.query('COMMIT')
    slow.release()
    await routeAll()
    expect(await routed('low')).toEqual(['late'])
  })

  it('is not stopped by a transaction that someone leaves open elsewhere', async () => {
    await ground.put('open', { url, clientId: 'open' })
    const other = await ground.sql.connect()
    await other.query('BEGIN ISOLATION LEVEL REPEATABLE READ')
    await other.query('CREATE TABLE held_open (id int)')
    await other.query('SELECT count(*) FROM commits')
    try {
      await ground.endSessions('open', 5, 'open')
      expect(await ground.states('open')).toEqual({ pending: 5 })
    } finally {
      await other.query('ROLLBACK')
      other.release()
    }
  })

  it('passes over a commit that another router holds, and takes it once that one has died', async () => {
    await ground.put('held', { url, clientId: 'held' })
    await seedSessions(ground.sql, ['held-0', 'held-1'].map((id) => ({ id, clients: [{ clientId: 'held' }] })))
    await terminateSessions(ground.db, [command('held-0')])
    const dying = await ground.sql.connect()
    await dying.query('BEGIN')
    await dying.query('SELECT id FROM commits WHERE routed_at IS NULL FOR UPDATE')
    await terminateSessions(ground.db, [command('held-1')])
    await routeAll()
    expect(await ground.states('held')).toEqual({ pending: 1 })
    await dying.query('ROLLBACK')
    dying.release()
    await routeAll()
    expect(await ground.states('held')).toEqual({ pending: 2 })
  })

  it('takes a commit of any size, however small its slice', async () => {
    await ground.put('huge', { url, clientId: 'huge' })
    await ground.sql.query(`
      WITH s AS (INSERT INTO sessions (id, issuer, user_id, resource_owner, sequence, registration_hash, creator_issuer, creator_subject, born, created_at, change_date, expires_at, state, terminated_at)
        SELECT 'huge-' || g, $1, 'u', 'o1', 2, 'h', 'i', 's', now(), now(), now(), now() + interval '1 h', 'terminated', now() FROM generate_series(1, 6000) g RETURNING id),
      p AS (INSERT INTO session_clients SELECT id, 'huge', id, 'u' FROM s),
      c AS (INSERT INTO commits (sessions) VALUES (6000) RETURNING id)
      INSERT INTO session_events (session_id, sequence, type, actor_issuer, actor_subject, commit_id, resource_owner, created_at)
      SELECT s.id, 2, 'session.terminated', 'i', 'a', c.id, 'o1', now() FROM s, c`, [ISSUER])
    await routeAll()
    expect(await ground.states('huge')).toEqual({ pending: 6_000 })
  })

  it('plans nothing for a receiver that is deleted meanwhile, and all for the others', async () => {
    await ground.put('gone', { url, clientId: 'gone' })
    await ground.put('stays', { url, clientId: 'gone' })
    await seedSessions(ground.sql, [{ id: 'gone-0', clients: [{ clientId: 'gone' }] }])
    await terminateSessions(ground.db, [command('gone-0')])
    const deleting = await ground.sql.connect()
    await deleting.query('BEGIN')
    await deleting.query(`DELETE FROM receivers WHERE id = 'gone'`)
    const routing = routeAll()
    await expect.poll(async () => (await ground.sql.query(`SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`)).rowCount).toBe(1)
    await deleting.query('COMMIT')
    deleting.release()
    await routing
    expect(await routed('gone-0')).toEqual(['stays'])
  })

  it('takes along what was planned at the moment in which a receiver is deleted', async () => {
    await ground.put('racing', { url, clientId: 'racing' })
    await seedSessions(ground.sql, [{ id: 'racing-0', clients: [{ clientId: 'racing' }] }])
    const planning = await ground.sql.connect()
    await planning.query('BEGIN')
    await planning.query(`SELECT FROM receivers WHERE id = 'racing' FOR KEY SHARE`)
    await planning.query(`INSERT INTO deliveries (receiver_id, session_id, client_id, sid, sub, issuer, moot_at) VALUES ('racing', 'racing-0', 'c', 's', 'u', 'i', now())`)
    const deleting = deleteReceiver(ground.db, { id: 'racing', reach: 'instance', issuers: [ISSUER] })
    await expect.poll(async () => (await ground.sql.query(`SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`)).rowCount).toBe(1)
    await planning.query('COMMIT')
    planning.release()
    await deleting
    expect(await ground.states('racing')).toEqual({})
  })

  it('G5: a participant added after the end is told once, however often it is asked', async () => {
    await ground.put('joined', { url, clientId: 'joined' })
    await seedSessions(ground.sql, [{ id: 'joined-0' }, { id: 'joined-live' }])
    await terminateSessions(ground.db, [command('joined-0')])
    await routeAll()
    const participant = { clientId: 'joined', sid: 'late-sid', sub: 'u9' }
    const late = { sessionId: 'joined-0', participant, maxTokenLifetimeSeconds: MAX_TOKEN_LIFETIME_SECONDS }
    expect(await planLateParticipant(ground.db, late)).toEqual(['joined'])
    expect(await planLateParticipant(ground.db, late)).toEqual([])
    expect(await planLateParticipant(ground.db, { ...late, sessionId: 'joined-live' })).toEqual([])
    expect(await planLateParticipant(ground.db, { ...late, sessionId: 'unknown' })).toEqual([])
    expect((await readSettled(ground.db, ['joined-0'])).get('joined-0')).toEqual({
      routed: true, counts: { total: 1, acknowledged: 0, pending: 1, failed: 0, moot: 0 },
    })
  })

  it('says that a termination is not routed until it is', async () => {
    await ground.put('settled', { url, clientId: 'settled' })
    await seedSessions(ground.sql, [{ id: 'settled-0', clients: [{ clientId: 'settled' }] }, { id: 'settled-live' }])
    await terminateSessions(ground.db, [command('settled-0')])
    const before = await readSettled(ground.db, ['settled-0', 'settled-live', 'unknown'])
    expect([...before.keys()]).toEqual(['settled-0'])
    expect(before.get('settled-0')?.routed).toBe(false)
    await routeAll()
    expect((await readSettled(ground.db, ['settled-0'])).get('settled-0')).toMatchObject({ routed: true, counts: { total: 1, pending: 1 } })
  })

  it('removes a deleted receiver with its deliveries, and nobody else’s', async () => {
    await ground.put('removed', { url, clientId: 'removed' })
    await ground.put('kept', { url, clientId: 'removed' })
    await ground.endSessions('removed', 4, 'removed')
    await deleteReceiver(ground.db, { id: 'removed', reach: 'instance', issuers: [ISSUER] })
    expect(await ground.states('removed')).toEqual({})
    expect(await ground.states('kept')).toEqual({ pending: 4 })
    await expect(deleteReceiver(ground.db, { id: 'removed', reach: 'instance', issuers: [ISSUER] })).rejects.toMatchObject({ kind: 'receiver_not_found' })
  })

  it('ends after the slice under way when the process stops, and leaves the rest to be found', async () => {
    await ground.sql.query('INSERT INTO commits (sessions) SELECT 0 FROM generate_series(1, 450)')
    const stopped = createRoute({
      db: ground.db, wakeReceiver: () => {}, maxTokenLifetimeSeconds: MAX_TOKEN_LIFETIME_SECONDS, signal: AbortSignal.abort(),
    })
    await stopped()
    expect(await unrouted()).toBe(250)
    await routeAll()
    expect(await unrouted()).toBe(0)
  })

  it('changes nothing where its connection is cut in the middle', async () => {
    await ground.put('cut', { url, clientId: 'cut' })
    await seedSessions(ground.sql, [{ id: 'cut-0', clients: [{ clientId: 'cut' }] }])
    await terminateSessions(ground.db, [command('cut-0')])
    const blocker = await ground.sql.connect()
    await blocker.query('BEGIN')
    await blocker.query('LOCK TABLE deliveries IN EXCLUSIVE MODE')
    const dying = openDatabase({ url: ground.database.url, name: 'dying', max: 1, lockTimeoutMs: 20_000, statementTimeoutMs: 20_000 })
    const routing = routeCommits(dying, { maxTokenLifetimeSeconds: MAX_TOKEN_LIFETIME_SECONDS }).catch((error: unknown) => error)
    await expect.poll(async () => (await ground.sql.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'curfew-dying' AND wait_event_type = 'Lock'`)).rowCount).toBe(1)
    expect(await routing).toBeInstanceOf(Error)
    await blocker.query('ROLLBACK')
    blocker.release()
    expect(await unrouted()).toBe(1)
    await routeAll()
    expect(await ground.states('cut')).toEqual({ pending: 1 })
    await dying.$disconnect()
  })
})
