import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { terminateSessions } from '../../src/store/terminations.ts'
import { createPruning } from '../../src/upkeep/prune.ts'
import { openGround } from '../delivery/ground.ts'
import type { Ground } from '../delivery/ground.ts'
import { startReceiver } from '../harness/receiver.ts'
import type { TestReceiver } from '../harness/receiver.ts'
import { ISSUER, command, seedSessions } from '../harness/seed.ts'

const DAY = 86_400
const DELIVERY_DAYS = 30
const SESSION_DAYS = 400

describe('pruning', () => {
  let ground: Ground
  let receiver: TestReceiver
  beforeAll(async () => {
    ground = await openGround()
    receiver = await startReceiver()
    await ground.put('told', { url: receiver.url, clientId: 'app' })
  })
  afterAll(async () => {
    await receiver.close()
    await ground.close()
  })
  beforeEach(() => ground.sql.query('TRUNCATE sessions, session_clients, session_events, commits, deliveries'))
  const made: { stop(): Promise<void> }[] = []
  afterEach(async () => {
    await Promise.all(made.splice(0).map((pruning) => pruning.stop()))
  })

  const open = (options: Partial<Parameters<typeof createPruning>[0]> = {}) => {
    const pruning = createPruning({
      db: ground.db, deliverySeconds: DELIVERY_DAYS * DAY, sessionSeconds: SESSION_DAYS * DAY, maxTokenLifetimeSeconds: DAY, log: ground.telemetry.log, ...options,
    })
    made.push(pruning)
    return pruning
  }
  /** Turns until nothing goes any more. */
  const prune = async (options: Parameters<typeof open>[0] = {}): Promise<void> => {
    const pruning = open(options)
    while ((await pruning.turn()) > 0);
  }
  const rows = async () => {
    const { rows: [counted] } = await ground.sql.query<Record<string, number>>(`SELECT
      (SELECT count(*)::int FROM sessions) AS sessions, (SELECT count(*)::int FROM session_clients) AS clients,
      (SELECT count(*)::int FROM session_events) AS events, (SELECT count(*)::int FROM commits) AS commits,
      (SELECT count(*)::int FROM deliveries) AS deliveries`)
    return counted ?? {}
  }
  const nothing = { sessions: 0, clients: 0, events: 0, commits: 0, deliveries: 0 }
  /** Whatever has a time, all of it so many days ago. A terminated session cannot be changed, so its trigger is away meanwhile. */
  const age = async (days: number) => {
    const by = `make_interval(days => ${days})`
    await ground.sql.query(`
      BEGIN;
      ALTER TABLE sessions DISABLE TRIGGER sessions_termination_is_final;
      UPDATE sessions SET created_at = created_at - ${by}, expires_at = expires_at - ${by}, terminated_at = terminated_at - ${by};
      ALTER TABLE sessions ENABLE TRIGGER sessions_termination_is_final;
      UPDATE commits SET committed_at = committed_at - ${by};
      UPDATE deliveries SET created_at = created_at - ${by}, done_at = done_at - ${by};
      COMMIT`)
  }
  const enforce = () => ground.sql.query('UPDATE commits SET enforced_at = now(), enforced_again_at = now()')
  /** Sessions that were ended, enforced and told. */
  const endAndTell = async (prefix: string, count: number) => {
    await ground.endSessions(prefix, count)
    await enforce()
    await ground.deliverLane().deliver('told')
    expect((await ground.states('told'))['pending']).toBeUndefined()
  }

  it('removes sessions with their participants, events and commits, and deliveries, each after its own time', async () => {
    await endAndTell('a', 30)
    await prune()
    expect(await rows()).toEqual({ sessions: 30, clients: 30, events: 60, commits: 1, deliveries: 30 })
    await age(DELIVERY_DAYS + 1)
    await prune()
    expect(await rows()).toEqual({ sessions: 30, clients: 30, events: 60, commits: 1, deliveries: 0 })
    await age(SESSION_DAYS - DELIVERY_DAYS)
    await prune()
    expect(await rows()).toEqual(nothing)
  })

  it('removes failed and moot deliveries too, and never one that is pending', async () => {
    await ground.endSessions('b', 4)
    await ground.sql.query(`UPDATE deliveries SET done_at = now(), state = CASE session_id WHEN 'b-0' THEN 'failed' WHEN 'b-1' THEN 'moot' ELSE 'acknowledged' END::delivery_state WHERE session_id <> 'b-3'`)
    await age(DELIVERY_DAYS + 1)
    await prune()
    const { rows: left } = await ground.sql.query('SELECT session_id, state::text FROM deliveries')
    expect(left).toEqual([{ session_id: 'b-3', state: 'pending' }])
  })

  it('G5: removes nothing that is not yet routed, enforced, enforced again or told', async () => {
    for (const state of ['routed_at', 'enforced_at', 'enforced_again_at']) {
      await endAndTell(state, 2)
      await ground.sql.query(`UPDATE commits SET ${state} = NULL WHERE id = (SELECT max(id) FROM commits)`)
    }
    await endAndTell('told', 1)
    await ground.endSessions('untold', 1)
    await enforce()
    await ground.sql.query(`UPDATE commits SET routed_at = NULL WHERE id = (SELECT min(id) FROM commits)`)
    await ground.sql.query(`UPDATE commits SET enforced_at = NULL, enforced_again_at = NULL WHERE id = (SELECT min(id) + 1 FROM commits)`)
    await ground.sql.query(`UPDATE commits SET enforced_again_at = NULL WHERE id = (SELECT min(id) + 2 FROM commits)`)
    await age(SESSION_DAYS + 1)
    await prune()
    const { rows: left } = await ground.sql.query<{ id: string }>('SELECT id FROM sessions ORDER BY id')
    expect(left.map(({ id }) => id.replace(/-\d$/, ''))).toEqual(['enforced_again_at', 'enforced_again_at', 'enforced_at', 'enforced_at', 'routed_at', 'routed_at', 'untold'])
    expect((await rows())['commits']).toBe(4)
  })

  it('G2: keeps a terminated session for as long as it or a token of it could have lived, however short the retention', async () => {
    await seedSessions(ground.sql, [{ id: 'short', expiresInSeconds: 60 }, { id: 'long', expiresInSeconds: 10 * DAY }])
    await terminateSessions(ground.db, [command('short'), command('long')])
    await ground.route()
    await enforce()
    await age(2)
    await prune({ sessionSeconds: 60 })
    const { rows: left } = await ground.sql.query('SELECT id FROM sessions')
    expect(left).toEqual([{ id: 'long' }])
    expect((await rows())['commits']).toBe(1)
    await age(20)
    await prune({ sessionSeconds: 60 })
    expect(await rows()).toEqual(nothing)
  })

  it('removes sessions that expired and that nobody ended, and none that lives', async () => {
    await seedSessions(ground.sql, [{ id: 'expired', clients: [{ clientId: 'app' }] }, { id: 'lives', expiresInSeconds: 1_000 * DAY }])
    await age(SESSION_DAYS + 1)
    await seedSessions(ground.sql, [{ id: 'new one' }])
    await prune()
    const { rows: left } = await ground.sql.query('SELECT id FROM sessions ORDER BY id')
    expect(left).toEqual([{ id: 'lives' }, { id: 'new one' }])
    expect(await rows()).toMatchObject({ clients: 0, events: 2 })
  })

  it('passes over what someone else holds, and finds it later', async () => {
    await endAndTell('held', 3)
    await age(SESSION_DAYS + 1)
    const other = await ground.sql.connect()
    await other.query('BEGIN')
    await other.query(`SELECT FROM sessions WHERE id = 'held-1' FOR UPDATE`)
    await other.query(`SELECT FROM deliveries WHERE session_id = 'held-2' FOR UPDATE`)
    await prune()
    expect(await rows()).toMatchObject({ sessions: 1, commits: 1, deliveries: 1 })
    await other.query('ROLLBACK')
    other.release()
    await prune()
    expect(await rows()).toEqual(nothing)
  })

  it('walks through more than a slice of everything, with several at it at once', async () => {
    await ground.sql.query(`
      WITH s AS (
        INSERT INTO sessions (id, issuer, user_id, resource_owner, sequence, registration_hash, creator_issuer, creator_subject, born, created_at, change_date, expires_at, state, terminated_at)
        SELECT 'm-' || g, $1, 'u', 'o1', 2, 'h', 'i', 's', now(), now(), now(), now(), CASE WHEN g % 2 = 0 THEN 'terminated' ELSE 'active' END::session_state,
          CASE WHEN g % 2 = 0 THEN now() END FROM generate_series(1, 8000) g RETURNING id, state),
      c AS (
        INSERT INTO commits (sessions, routed_at, enforced_at, enforced_again_at) SELECT 5, now(), now(), now() FROM generate_series(1, 800) RETURNING id),
      e AS (
        INSERT INTO session_events (session_id, sequence, type, actor_issuer, actor_subject, commit_id, resource_owner, created_at)
        SELECT s.id, 2, 'session.terminated', 'i', 'a', (SELECT min(id) FROM c) + (substr(s.id, 3)::int / 2) % 800, 'o1', now() FROM s WHERE state = 'terminated')
      INSERT INTO deliveries (receiver_id, session_id, client_id, sid, sub, issuer, state, moot_at, done_at)
      SELECT 'told', id, 'app', id, 'u', $1, 'acknowledged', now(), now() FROM s, generate_series(1, 2) n WHERE n = 1 OR state = 'terminated'
      ON CONFLICT DO NOTHING`, [ISSUER])
    await age(SESSION_DAYS + 2)
    await Promise.all([prune(), prune(), prune()])
    await prune()
    expect(await rows()).toEqual(nothing)
  })

  it('keeps the tables small while sessions come and go', async () => {
    const told = receiver.requests.length
    for (let round = 0; round < 4; round += 1) {
      const ids = Array.from({ length: 100 }, (_, at) => `round-${round}-${at}`)
      await seedSessions(ground.sql, ids.map((id) => ({ id, expiresInSeconds: 0, clients: [{ clientId: 'app' }] })))
      await terminateSessions(ground.db, ids.map((id) => command(id)))
      // Not before: sessions that expired and that nobody has ended may go at once.
      const pruning = open({ deliverySeconds: 0.2, sessionSeconds: 0.2, maxTokenLifetimeSeconds: 0, intervalMs: 20 })
      await pruning.start()
      await ground.route()
      await enforce()
      await ground.deliverLane().deliver('told')
      await expect.poll(rows, { timeout: 10_000 }).toEqual(nothing)
      await pruning.stop()
    }
    expect(receiver.requests.length - told).toBe(400)
  })

  it('removes cutoff rules and counts of attempts after their retention, and none before', async () => {
    await ground.sql.query(`
      INSERT INTO cutoff_rules (id, issuer, cutoff, reason, actor_issuer, actor_subject, created_at, expires_at, version)
      SELECT gen_random_uuid(), 'i', t, 'r', 'a', 'b', t, t + interval '31 days', nextval('cutoff_rules_version_seq')
      FROM unnest(ARRAY[now() - interval '399 days', now() - interval '401 days']) t CROSS JOIN generate_series(1, 1500);
      INSERT INTO dead_uses SELECT 'i', 'session', extract(epoch FROM t) || '/' || n, 1, t, t
      FROM unnest(ARRAY[now() - interval '399 days', now() - interval '401 days']) t CROSS JOIN generate_series(1, 1500) n`)
    expect(await open().turn()).toBe(3_000)
    const { rows: [left] } = await ground.sql.query('SELECT (SELECT count(*)::int FROM cutoff_rules) AS rules, (SELECT count(*)::int FROM dead_uses) AS uses')
    expect(left).toEqual({ rules: 1_500, uses: 1_500 })
  })
})
