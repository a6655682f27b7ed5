import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startApi } from './api.ts'
import type { TestApi } from './api.ts'

let api: TestApi
let instance: string

beforeAll(async () => {
  api = await startApi()
  instance = await api.bearer({ permissions: ['receiver.read', 'receiver.write'] })
})
afterAll(() => api.close())

const call = async (method: 'GET' | 'PUT', path: string, payload?: object) =>
  (await api.app.inject({ method, url: `/v1/receivers${path}`, headers: { authorization: instance }, ...(payload === undefined ? {} : { payload }) })).json()
const put = (id: string) => call('PUT', `/${id}`, { type: 'backchannel_logout', url: 'https://app.example/logout', clientId: 'app' })
const plan = (id: string, states: string) =>
  api.database.sql.query(
    `INSERT INTO deliveries (receiver_id, session_id, client_id, sid, sub, issuer, state, created_at, moot_at)
     SELECT $1, 's' || n, 'app', 's' || n, 'u', $3, s.state::delivery_state, now() - make_interval(mins => 60 - n::int), now() + interval '1 d'
     FROM unnest($2::text[]) WITH ORDINALITY AS s(state, n)`, [id, states.split(' '), api.issuer.url])

describe('the health of a receiver', () => {
  it('is that of one that has nothing to be told, when it is new', async () => {
    expect(await put('fresh')).toMatchObject({
      breaker: 'closed', consecutiveFailures: 0, brokenUntil: null, lastSuccessDate: null, lastFailureDate: null, draining: false, pending: 0, oldestPendingDate: null,
    })
  })

  it('shows the backlog and since when its oldest waits, in the list and alone', async () => {
    await put('behind')
    await plan('behind', 'acknowledged pending failed pending moot pending')
    const [oldest] = (await api.database.sql.query<{ at: Date }>(`SELECT min(created_at) AS at FROM deliveries WHERE receiver_id = 'behind' AND state = 'pending'`)).rows
    const shown = { pending: 3, oldestPendingDate: oldest?.at.toISOString() }
    expect(await call('GET', '/behind')).toMatchObject(shown)
    const { receivers } = await call('GET', '')
    expect(receivers.find(({ id }: { id: string }) => id === 'behind')).toMatchObject(shown)
    expect(await put('behind')).toMatchObject(shown)
  })

  it('shows the breaker, who last answered and failed, and whether it is being told', async () => {
    await put('broken')
    const at = (state: string) => api.database.sql.query(`UPDATE receivers SET ${state} WHERE id = 'broken'`)
    await at(`consecutive_failures = 5, broken_until = now() + interval '1 min', last_failure_at = now(), last_success_at = now() - interval '1 h'`)
    const open = await call('GET', '/broken')
    expect(open).toMatchObject({ breaker: 'open', consecutiveFailures: 5, draining: false })
    expect(Date.parse(open.lastFailureDate) - Date.parse(open.lastSuccessDate)).toBe(3_600_000)
    await at(`broken_until = now(), drained_until = now() + interval '1 min'`)
    expect(await call('GET', '/broken')).toMatchObject({ breaker: 'half_open', draining: true })
    await at(`broken_until = NULL, drained_until = now()`)
    expect(await call('GET', '/broken')).toMatchObject({ breaker: 'closed', draining: false })
  })

  it('counts a backlog of any size within a bound', async () => {
    await put('far-behind')
    await plan('far-behind', Array.from({ length: 1_500 }, () => 'pending').join(' '))
    const { receivers } = await call('GET', '')
    expect(receivers.find(({ id }: { id: string }) => id === 'far-behind').pending).toBe(1_000)
    expect((await call('GET', '/far-behind')).pending).toBe(1_500)
  })
})
