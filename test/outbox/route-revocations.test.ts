import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createRouteRevocations } from '../../src/outbox/route-revocations.ts'
import { planLateParticipant } from '../../src/store/deliveries.ts'
import { deleteReceiver } from '../../src/store/receivers.ts'
import { terminateSessions } from '../../src/store/terminations.ts'
import { MAX_TOKEN_LIFETIME_SECONDS, openGround } from '../delivery/ground.ts'
import type { Ground } from '../delivery/ground.ts'
import { countedOutcomes, endByRevocation, finishRevocation, outcomesOf, seedRevocation } from '../harness/revocations.ts'
import { ISSUER, command, seedSessions } from '../harness/seed.ts'

const url = 'https://rp.example/logout'

describe('routing what revocations ended', () => {
  let ground: Ground
  beforeAll(async () => { ground = await openGround() })
  afterAll(() => ground.close())

  const woken: string[] = []
  const router = () => createRouteRevocations({ db: ground.db, wakeReceiver: (id) => void woken.push(id), maxTokenLifetimeSeconds: MAX_TOKEN_LIFETIME_SECONDS })
  const routeAll = async (): Promise<string[]> => {
    woken.length = 0
    await router()()
    return woken.toSorted()
  }
  /** Sessions `name-0`, …, each with one client and a user of its own. */
  const sessions = async (name: string, count: number, client = name): Promise<string[]> => {
    const ids = Array.from({ length: count }, (_, at) => `${name}-${at}`)
    await seedSessions(ground.sql, ids.map((id) => ({ id, userId: `user of ${id}`, clients: [{ clientId: client }] })))
    return ids
  }
  const unrouted = async (): Promise<number> => (await ground.sql.query('SELECT FROM commits WHERE routed_at IS NULL')).rowCount ?? 0

  it('G5: plans one delivery for each receiver of each participant, wakes each, and says whose they are', async () => {
    await ground.put('a', { url, clientId: 'both' })
    await ground.put('b', { url, clientId: 'both' })
    await ground.putWebhook('hook', { url, resourceOwner: 'o1' })
    const ids = await sessions('both', 3)
    const revocation = await seedRevocation(ground.sql)
    await endByRevocation(ground.sql, revocation, ids)
    expect(await routeAll()).toEqual(['a', 'b', 'hook'])
    const { rows } = await ground.sql.query(
      `SELECT receiver_id, count(*)::int AS n, bool_and(revocation_id = $1 AND due_at <= now() AND state = 'pending') AS his
       FROM deliveries WHERE session_id = ANY($2) GROUP BY 1 ORDER BY 1`, [revocation, ids])
    expect(rows).toEqual(['a', 'b', 'hook'].map((receiver_id) => ({ receiver_id, n: 3, his: true })))
    expect(await outcomesOf(ground.sql, revocation)).toEqual(
      ['a', 'b', 'hook'].map((receiver_id) => ({ receiver_id, total: 3, pending: 3, acknowledged: 0, failed: 0, moot: 0 })))
    expect(await unrouted()).toBe(0)
    expect(await routeAll()).toEqual([])
    await deleteReceiver(ground.db, { id: 'hook', reach: 'instance', issuers: [ISSUER] })
  })

  it('G6: tells no receiver of another issuer, client or organization', async () => {
    await ground.put('own', { url, clientId: 'scoped', resourceOwner: 'o1' })
    await ground.put('other-org', { url, clientId: 'scoped', resourceOwner: 'o2' })
    await ground.putWebhook('other-hook', { url, resourceOwner: 'o2' })
    await ground.sql.query(`INSERT INTO receivers (id, type, url, issuer, client_id) VALUES ('other-issuer', 'backchannel_logout', $1, 'https://else', 'scoped')`, [url])
    const revocation = await seedRevocation(ground.sql)
    await endByRevocation(ground.sql, revocation, await sessions('scoped', 1))
    await routeAll()
    expect((await outcomesOf(ground.sql, revocation)).map(({ receiver_id }) => receiver_id)).toEqual(['own'])
  })

  it('G8: leaves log-outs to their own claim, and that leaves revocations to this one', async () => {
    await ground.put('apart', { url, clientId: 'apart' })
    const [single = '', ...many] = await sessions('apart', 3)
    const revocation = await seedRevocation(ground.sql)
    await endByRevocation(ground.sql, revocation, many)
    await terminateSessions(ground.db, [command(single)])
    await ground.route()
    expect(await ground.states('apart')).toEqual({ pending: 1 })
    await routeAll()
    expect(await ground.states('apart')).toEqual({ pending: 3 })
  })

  it('shares the work between routers that run at once: nothing is planned twice, and the counts are exact', async () => {
    await ground.put('shared-a', { url, clientId: 'shared' })
    await ground.put('shared-b', { url, clientId: 'shared', subject: 'sub' })
    const ids = await sessions('shared', 400)
    const revocations = [await seedRevocation(ground.sql), await seedRevocation(ground.sql)]
    for (let from = 0; from < ids.length; from += 4) await endByRevocation(ground.sql, revocations[from % 8 / 4] ?? '', ids.slice(from, from + 4))
    await Promise.all(Array.from({ length: 4 }, () => router()()))
    expect(await ground.states('shared-a')).toEqual({ pending: 400 })
    expect(await ground.states('shared-b')).toEqual({ pending: 400 })
    expect(await unrouted()).toBe(0)
    for (const id of revocations) expect(await outcomesOf(ground.sql, id)).toEqual(await countedOutcomes(ground.sql, id))
  })

  it('G5: a router that dies half way has planned nothing, and the next plans all of it', async () => {
    await ground.put('crash', { url, clientId: 'crash' })
    const revocation = await seedRevocation(ground.sql)
    await endByRevocation(ground.sql, revocation, await sessions('crash', 2))
    const blocker = await ground.sql.connect()
    await blocker.query('BEGIN')
    await blocker.query('LOCK TABLE deliveries IN EXCLUSIVE MODE')
    const routing = router()().catch((error: unknown) => error)
    await expect.poll(async () => (await ground.sql.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'curfew-test' AND wait_event_type = 'Lock'`)).rowCount).toBe(1)
    expect(await routing).toBeInstanceOf(Error)
    await blocker.query('ROLLBACK')
    blocker.release()
    expect(await outcomesOf(ground.sql, revocation)).toEqual([])
    await routeAll()
    expect(await outcomesOf(ground.sql, revocation)).toMatchObject([{ receiver_id: 'crash', total: 2, pending: 2 }])
  })

  it('G7: a revocation that cannot be handed on holds up no other', async () => {
    await ground.put('stuck', { url, clientId: 'stuck' })
    const [stuck, other] = [await seedRevocation(ground.sql, { id: '00000000-0000-4000-8000-00000000000a' }), await seedRevocation(ground.sql)]
    const [first = '', second = '', third = ''] = await sessions('stuck', 3)
    await endByRevocation(ground.sql, stuck, [first])
    await routeAll()
    await endByRevocation(ground.sql, stuck, [second])
    await endByRevocation(ground.sql, other, [third])
    const blocker = await ground.sql.connect()
    await blocker.query('BEGIN')
    await blocker.query('SELECT FROM revocation_outcomes WHERE revocation_id = $1 FOR UPDATE', [stuck])
    await expect(routeAll()).rejects.toThrow()
    expect(await outcomesOf(ground.sql, other)).toMatchObject([{ receiver_id: 'stuck', total: 1 }])
    await blocker.query('ROLLBACK')
    blocker.release()
    await routeAll()
    expect(await outcomesOf(ground.sql, stuck)).toMatchObject([{ receiver_id: 'stuck', total: 2 }])
  })

  it('counts what a deleted receiver was not told as moot', async () => {
    await ground.put('gone', { url, clientId: 'gone' })
    const revocation = await seedRevocation(ground.sql)
    await endByRevocation(ground.sql, revocation, await sessions('gone', 3))
    await routeAll()
    await deleteReceiver(ground.db, { id: 'gone', reach: 'instance', issuers: [ISSUER] })
    expect(await outcomesOf(ground.sql, revocation)).toMatchObject([{ receiver_id: 'gone', total: 3, pending: 0, moot: 3 }])
  })

  it('plans nothing for a receiver that is deleted meanwhile, and all for the others', async () => {
    await ground.put('leaving', { url, clientId: 'leaving' })
    await ground.put('staying', { url, clientId: 'leaving' })
    const revocation = await seedRevocation(ground.sql)
    await endByRevocation(ground.sql, revocation, await sessions('leaving', 2))
    const deleting = await ground.sql.connect()
    await deleting.query('BEGIN')
    await deleting.query(`DELETE FROM receivers WHERE id = 'leaving'`)
    const routing = routeAll()
    await expect.poll(async () => (await ground.sql.query(`SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`)).rowCount).toBe(1)
    await deleting.query('COMMIT')
    deleting.release()
    expect(await routing).toEqual(['staying'])
    expect(await outcomesOf(ground.sql, revocation)).toEqual(await countedOutcomes(ground.sql, revocation))
  })

  it('tells of a participant that came late as part of the revocation', async () => {
    await ground.put('late', { url, clientId: 'late-client' })
    const [id = ''] = await sessions('late', 1, 'other')
    const revocation = await seedRevocation(ground.sql)
    await endByRevocation(ground.sql, revocation, [id])
    await routeAll()
    const participant = { clientId: 'late-client', sid: id, sub: 'u' }
    expect(await planLateParticipant(ground.db, { sessionId: id, participant, maxTokenLifetimeSeconds: 1 })).toEqual(['late'])
    expect(await planLateParticipant(ground.db, { sessionId: id, participant, maxTokenLifetimeSeconds: 1 })).toEqual([])
    expect(await outcomesOf(ground.sql, revocation)).toMatchObject([{ receiver_id: 'late', total: 1, pending: 1 }])
  })

  describe('of users, where a receiver is told of users', () => {
    const user = async (name: string, count: number): Promise<string[]> => {
      const ids = Array.from({ length: count }, (_, at) => `${name}-${at}`)
      await seedSessions(ground.sql, ids.map((id) => ({ id, userId: name, clients: [{ clientId: name }] })))
      return ids
    }
    const told = async (receiver: string) => (await ground.sql.query<{ of_user: boolean; due: boolean; last_outcome: string | null }>(
      'SELECT of_user, due_at <= now() AS due, last_outcome FROM deliveries WHERE receiver_id = $1 ORDER BY id', [receiver])).rows

    it('tells once of a user all of whose sessions ended', async () => {
      await ground.put('once', { url, clientId: 'once', subject: 'sub' })
      await ground.put('each', { url, clientId: 'once', subject: 'both' })
      const ids = await user('once', 5)
      const revocation = await seedRevocation(ground.sql)
      await endByRevocation(ground.sql, revocation, ids)
      await routeAll()
      expect(await told('once')).toEqual([{ of_user: true, due: true, last_outcome: null }])
      expect(await told('each')).toHaveLength(5)
    })

    it('waits while the user has sessions that live, and tells once the last is ended', async () => {
      await ground.put('waits', { url, clientId: 'waits', subject: 'sub' })
      const [first = '', second = '', third = ''] = await user('waits', 3)
      const revocation = await seedRevocation(ground.sql)
      await endByRevocation(ground.sql, revocation, [first])
      expect(await routeAll()).toEqual([])
      expect(await told('waits')).toEqual([{ of_user: true, due: false, last_outcome: 'waiting' }])
      await endByRevocation(ground.sql, revocation, [second])
      await routeAll()
      expect(await told('waits')).toEqual([{ of_user: true, due: false, last_outcome: 'waiting' }])
      await endByRevocation(ground.sql, revocation, [third])
      expect(await routeAll()).toEqual(['waits'])
      expect(await told('waits')).toEqual([{ of_user: true, due: true, last_outcome: null }])
      expect(await outcomesOf(ground.sql, revocation)).toEqual(await countedOutcomes(ground.sql, revocation))
    })

    it('tells of a user whom the revocation leaves a session when it is done', async () => {
      await ground.put('left', { url, clientId: 'left', subject: 'sub' })
      const [first = ''] = await user('left', 2)
      const revocation = await seedRevocation(ground.sql)
      await endByRevocation(ground.sql, revocation, [first])
      await routeAll()
      await finishRevocation(ground.sql, revocation)
      expect(await routeAll()).toEqual(['left'])
      expect(await told('left')).toEqual([{ of_user: true, due: true, last_outcome: null }])
    })

    it('tells of a user who was waited for when the revocation is cancelled', async () => {
      await ground.put('left-over', { url, clientId: 'left-over', subject: 'sub' })
      const [first = ''] = await user('left-over', 2)
      const revocation = await seedRevocation(ground.sql)
      await endByRevocation(ground.sql, revocation, [first])
      await routeAll()
      await ground.sql.query(`UPDATE revocations SET state = 'cancelled' WHERE id = $1`, [revocation])
      expect(await routeAll()).toEqual(['left-over'])
    })

    it('waits for no session that has expired by itself', async () => {
      await ground.put('expired', { url, clientId: 'expired', subject: 'sub' })
      const [first = '', second = ''] = await user('expired', 2)
      await ground.sql.query(`UPDATE sessions SET expires_at = now() - interval '1 second' WHERE id = $1`, [second])
      const revocation = await seedRevocation(ground.sql)
      await endByRevocation(ground.sql, revocation, [first])
      expect(await routeAll()).toEqual(['expired'])
    })

    it('tells by itself of a session that was registered after the revocation was accepted', async () => {
      await ground.put('after', { url, clientId: 'after', subject: 'sub' })
      const [first = ''] = await user('after', 1)
      const revocation = await seedRevocation(ground.sql)
      await endByRevocation(ground.sql, revocation, [first])
      await routeAll()
      await seedSessions(ground.sql, [{ id: 'after-late', userId: 'after', clients: [{ clientId: 'after' }] }])
      await endByRevocation(ground.sql, revocation, ['after-late'])
      await routeAll()
      expect((await told('after')).map(({ of_user }) => of_user)).toEqual([true, false])
    })

    it('G5: each user is told once and after the last end, whatever the order of ends, routers and crashes', async () => {
      await ground.put('storm', { url, clientId: 'storm', subject: 'sub' })
      const users = Array.from({ length: 20 }, (_, at) => `storm-user-${at}`)
      const all = users.flatMap((userId) => Array.from({ length: 6 }, (_, at) => ({ id: `${userId}-${at}`, userId, clients: [{ clientId: 'storm' }] })))
      await seedSessions(ground.sql, all)
      const revocation = await seedRevocation(ground.sql)
      // A permutation without chance: 7 and 120 have no divisor in common.
      const order = all.map((_, at) => all[(at * 7) % all.length]?.id ?? '')
      let ending = true
      const routers = Array.from({ length: 3 }, async () => {
        while (ending) await router()()
        await router()()
      })
      // In one view of the database, nobody is to be told while a session lives.
      const tooEarly = async (): Promise<number> => (await ground.sql.query(
        `SELECT FROM deliveries d WHERE d.receiver_id = 'storm' AND d.due_at < 'infinity'
           AND EXISTS (SELECT FROM sessions s WHERE s.user_id = d.sub AND s.state = 'active')`)).rowCount ?? 0
      let early = 0
      const watcher = (async () => {
        while (ending) early += await tooEarly()
      })()
      const lanes = [0, 1, 2].map(async (lane) => {
        for (let from = lane * 40; from < (lane + 1) * 40; from += 5) await endByRevocation(ground.sql, revocation, order.slice(from, from + 5))
      })
      await Promise.all(lanes)
      ending = false
      await Promise.all([...routers, watcher])
      expect(early).toBe(0)
      const { rows } = await ground.sql.query(
        `SELECT d.sub, count(*)::int AS n, bool_and(d.due_at <= now()) AS due FROM deliveries d WHERE d.receiver_id = 'storm' GROUP BY 1`)
      expect(rows).toHaveLength(users.length)
      for (const row of rows) expect(row).toMatchObject({ n: 1, due: true })
      expect(await outcomesOf(ground.sql, revocation)).toEqual(await countedOutcomes(ground.sql, revocation))
    })
  })
})
