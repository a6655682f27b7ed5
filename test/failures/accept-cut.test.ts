/** Revocations that are accepted while processes are killed and connections cut: each key is one revocation, whole, and carried out. */
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import type { ServiceProcess } from '../harness/processes.ts'
import { startCluster } from './cluster.ts'
import type { Cluster } from './cluster.ts'

/** Answers between two cuts, each of which hits what is under way: by answers and not by time, so that slow machines come to an end too. */
const CUT_EVERY = 5
const KEYS = 24
const AT_ONCE = 6

interface Operation {
  readonly name: string
  readonly done: boolean
  readonly metadata: { readonly sessions: { readonly terminated: string } }
}

describe('revocations accepted while connections are cut and an API is killed', () => {
  let cluster: Cluster
  let apis: ServiceProcess[]
  let token: string
  beforeAll(async () => {
    cluster = await startCluster({ redis: null, settings: { RATE_LIMIT_CALLER: '100000' } })
    token = await cluster.issuer.token({ sub: 'responder', permissions: ['revocation.write', 'revocation.read'] })
    apis = [await cluster.start('api'), await cluster.start('api'), await cluster.start('worker')]
  })
  afterAll(() => cluster.stop())

  const cutAll = () =>
    cluster.database.sql.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'curfew-api'`)
  const call = async (api: ServiceProcess | undefined, path: string, options: RequestInit = {}): Promise<{ status: number; body: Operation } | null> => {
    try {
      const response = await fetch(`${api?.apiUrl}${path}`, { ...options, headers: { authorization: `Bearer ${token}`, ...options.headers } })
      return { status: response.status, body: (await response.json()) as Operation }
    } catch {
      // Killed before it answered: nothing is known.
      return null
    }
  }
  const post = (api: ServiceProcess | undefined, key: number, sessionUser: string) =>
    call(api, '/v1/revocations', {
      method: 'POST',
      headers: { 'idempotency-key': `key-${key}` },
      body: JSON.stringify({ filter: { userIds: [sessionUser] }, reason: 'stolen laptop' }),
    })

  it('G4, G9: a key is one revocation at every API, with its rule, and all of it is carried out', async () => {
    for (let n = 0; n < KEYS; n += 1) await cluster.live(2, { userId: `user-${n}` })
    const names = new Map<number, Set<string>>()
    const statuses = new Set<number>()
    let answers = 0
    /** Asked again at the other API until it is accepted. */
    const until = async (key: number): Promise<void> => {
      for (let at = key; ; at += 1) {
        const answer = await post(apis[at % 2], key, `user-${key}`)
        answers += 1
        if (answers % CUT_EVERY === 0) void cutAll().catch(() => {})
        if (answer === null) continue
        statuses.add(answer.status)
        if (answer.status !== 202) continue
        names.set(key, (names.get(key) ?? new Set()).add(answer.body.name))
        return
      }
    }
    const lane = async (first: number): Promise<void> => {
      // Each key twice at the same time.
      for (let key = first; key < KEYS; key += AT_ONCE) await Promise.all([until(key), until(key)])
    }
    const asking = Promise.all(Array.from({ length: AT_ONCE }, (_, n) => lane(n)))
    await vi.waitFor(() => expect(names.size).toBeGreaterThan(3), { timeout: 20_000 })
    await apis[0]?.kill()
    apis[0] = await cluster.start('api')
    await asking

    for (const [key, seen] of names) {
      expect([key, seen.size]).toEqual([key, 1])
      await vi.waitFor(async () => {
        const answer = await post(apis[1], key, `user-${key}`)
        expect([answer?.status, answer?.body.name]).toEqual([202, [...seen][0]])
      }, { timeout: 10_000 })
    }
    expect([...statuses].filter((status) => ![202, 503, 504].includes(status))).toEqual([])
    const { rows } = await cluster.database.sql.query<{ id: string; rules: number; events: number }>(
      `SELECT r.id::text AS id, (SELECT count(*)::int FROM cutoff_rules c WHERE c.revocation_id = r.id AND c.cutoff = r.cutoff_time) AS rules,
         (SELECT count(*)::int FROM revocation_events e WHERE e.revocation_id = r.id AND type = 'revocation.accepted') AS events FROM revocations r`)
    expect(rows).toHaveLength(KEYS)
    for (const row of rows) expect(row).toMatchObject({ rules: 1, events: 1 })
    for (const [name] of [...names.values()].map((seen) => [...seen])) {
      await vi.waitFor(async () => {
        const answer = await call(apis[1], `/v1/${name}?wait=20`)
        expect(answer?.body).toMatchObject({ done: true, metadata: { sessions: { matched: '2', terminated: '2' } } })
      }, { timeout: 40_000 })
    }
  }, 150_000)
})
