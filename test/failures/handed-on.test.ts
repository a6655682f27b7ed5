/** What is handed on whatever the order in which transactions end: a commit that lands late, a participant that comes late. */
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { startReceiver } from '../harness/receiver.ts'
import type { TestReceiver } from '../harness/receiver.ts'
import type { ServiceProcess } from '../harness/processes.ts'
import { redisMissing } from '../harness/redis.ts'
import { sidsOf, startCluster } from './cluster.ts'
import type { Cluster } from './cluster.ts'
import { createHold } from './hold.ts'
import type { Hold } from './hold.ts'

describe.skipIf(redisMissing)('handing on', () => {
  let cluster: Cluster
  let api: ServiceProcess
  let app: TestReceiver
  let late: TestReceiver
  let hold: (sessionId: string) => Promise<Hold>
  beforeAll(async () => {
    cluster = await startCluster()
    hold = await createHold(cluster.database.sql)
    ;[app, late] = await Promise.all([startReceiver(), startReceiver()])
    ;[api] = await Promise.all([cluster.start('api'), cluster.start('worker')])
    await cluster.putReceiver(api, 'app', app.url)
    await cluster.putReceiver(api, 'late', late.url)
    await cluster.untilQueued(api)
  })
  afterAll(async () => {
    await cluster.stop()
    await Promise.all([app.close(), late.close()])
  })

  const toldOf = (receiver: TestReceiver, id: string) =>
    vi.waitFor(() => expect(sidsOf(receiver.tokens())).toContain(id), { timeout: 10_000 })

  it('G5: a commit with a lower id that lands after later ones were handed on is handed on too', async () => {
    const { sql } = cluster.database
    const [slow = '', quick = ''] = await cluster.live(2, { clients: [{ clientId: 'app' }] })
    // As a worker's transaction would stand whose COMMIT takes its time.
    const other = await sql.connect()
    await other.query('BEGIN')
    const { rows } = await other.query<{ id: string }>('INSERT INTO commits (sessions) VALUES (1) RETURNING id')
    const lower = rows[0]?.id
    await other.query(`UPDATE sessions SET state = 'terminated', sequence = 2, terminated_at = now(), change_date = now() WHERE id = $1`, [slow])
    await other.query(
      `INSERT INTO session_events (session_id, sequence, type, mode, actor_issuer, actor_subject, commit_id, resource_owner, created_at)
       SELECT id, 2, 'session.terminated', 'logout', issuer, 'admin', $2, resource_owner, change_date FROM sessions WHERE id = $1`, [slow, lower])

    await cluster.expectTruth(new Map([[quick, await cluster.end(api, quick)]]))
    await toldOf(app, quick)
    const later = await sql.query<{ id: string }>('SELECT max(id) AS id FROM commits WHERE routed_at IS NOT NULL')
    expect(Number(later.rows[0]?.id)).toBeGreaterThan(Number(lower))
    expect(sidsOf(app.tokens())).not.toContain(slow)

    await other.query('COMMIT')
    other.release()
    await toldOf(app, slow)
    await cluster.untilSettled()
    await cluster.expectTruth(new Map([[slow, await cluster.end(api, slow)]]))
  })

  it('G5: a participant added while the session ends is refused with 409, and told', async () => {
    const [id = ''] = await cluster.live(1, { clients: [{ clientId: 'app' }] })
    const held = await hold(id)
    const ended = cluster.end(api, id)
    await held.caught()
    const joined = cluster.request(api, 'PUT', `/v1/sessions/${id}/clients/late`, {})
    // It waits for the row that the termination holds.
    await vi.waitUntil(async () => {
      const { rows } = await cluster.database.sql.query(
        `SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'curfew-api' AND wait_event_type = 'Lock'`)
      return rows.length > 0
    }, { timeout: 900, interval: 5 })
    await held.release()
    await cluster.expectTruth(new Map([[id, await ended]]))
    expect(await joined).toMatchObject({ status: 409, body: { code: 9 } })
    await toldOf(late, id)
    await toldOf(app, id)
  })

  it('G5: a participant whose adding the termination waits for is told as any other', async () => {
    const [id = ''] = await cluster.live(1, { clients: [{ clientId: 'app' }] })
    const held = await hold(id)
    const joined = cluster.request(api, 'PUT', `/v1/sessions/${id}/clients/late`, {})
    await held.caught()
    const ended = cluster.end(api, id)
    await held.release()
    expect((await joined).status).toBe(200)
    const answer = await ended
    expect(answer.body.details?.sequence).toBe('3')
    await cluster.expectTruth(new Map([[id, answer]]))
    await toldOf(late, id)
    await toldOf(app, id)
  })

  it('G5: a participant added to a session that has ended long since is refused with 409, and told once', async () => {
    const [id = ''] = await cluster.live(1)
    await cluster.end(api, id)
    const join = () => cluster.request(api, 'PUT', `/v1/sessions/${id}/clients/late`, {})
    expect(await join()).toMatchObject({ status: 409, body: { code: 9 } })
    expect(await join()).toMatchObject({ status: 409, body: { code: 9 } })
    await toldOf(late, id)
    await cluster.untilSettled()
    expect(sidsOf(late.tokens()).filter((sid) => sid === id)).toHaveLength(1)
  })
})
