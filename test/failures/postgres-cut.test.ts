/** Postgres connections cut again and again, as a failover cuts them. Fault F22. */
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import type { ServiceProcess } from '../harness/processes.ts'
import { redisMissing } from '../harness/redis.ts'
import { startCluster } from './cluster.ts'
import type { Answer, Cluster } from './cluster.ts'
import { startLoad } from './load.ts'

const CUT_EVERY_MS = 200

describe.skipIf(redisMissing)('Postgres connections cut every 200 ms under load', () => {
  let cluster: Cluster
  let api: ServiceProcess
  beforeAll(async () => {
    cluster = await startCluster()
    ;[api] = await Promise.all([cluster.start('api'), cluster.start('worker')])
    await cluster.untilQueued(api)
  })
  afterAll(() => cluster.stop())

  const cutAll = () =>
    cluster.database.sql.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'curfew-%'`)

  it('G1, G3: every 200 is a committed event, any other is safe to repeat, no session ends twice, nothing is left open', async () => {
    const ids = await cluster.live(400)
    const load = startLoad({ ids, everyMs: 20, ask: (id) => cluster.end(api, id) })
    await load.untilAnswered(20)
    const cutting = setInterval(() => void cutAll(), CUT_EVERY_MS)
    await load.untilAnswered(250)
    clearInterval(cutting)
    await load.untilAnswered(20)
    const answers = await load.stop()

    const good = new Map<string, Answer>()
    for (const [id, answer] of answers) {
      if (answer.status === 200) good.set(id, answer)
      else expect([503, 504]).toContain(answer.status)
    }
    await cluster.expectTruth(good)
    // The pools have healed: asking again is answered, and with the first termination's details.
    const again = new Map(await Promise.all([...answers.keys()].map(async (id) => [id, await cluster.end(api, id)] as const)))
    await cluster.expectTruth(again)
    for (const [id, { body }] of good) expect(again.get(id)?.body).toEqual(body)
    expect(good.size).toBeGreaterThan(answers.size / 2)

    const { rows: twice } = await cluster.database.sql.query(
      `SELECT session_id FROM session_events WHERE type = 'session.terminated' GROUP BY session_id HAVING count(*) > 1`)
    expect(twice).toEqual([])
    await cluster.untilSettled()
    await vi.waitFor(async () => {
      const { rows } = await cluster.database.sql.query(
        `SELECT pid, state, query FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'`)
      expect(rows).toEqual([])
    }, { timeout: 5_000 })
    await cluster.untilQueued(api)
  }, 60_000)
})
