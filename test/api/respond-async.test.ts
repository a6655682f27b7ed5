/** `Prefer: respond-async` on a DELETE: accepted as a revocation of one session, by the permission of any DELETE. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { hashSessionToken, newSessionToken } from '../../src/auth/session-token.ts'
import { readInteractiveAge } from '../../src/store/revocation-clocks.ts'
import { createTelemetry } from '../../src/telemetry.ts'
import { createPace } from '../../src/termination/revoke-pace.ts'
import { createRevoke } from '../../src/termination/revoke.ts'
import type { Revoke } from '../../src/termination/revoke.ts'
import { seedSessions } from '../harness/seed.ts'
import type { SeedSession } from '../harness/seed.ts'
import { startRevocationApi } from './revocation-rig.ts'
import type { RevocationApi } from './revocation-rig.ts'

let api: RevocationApi
let engine: Revoke
const stopping = new AbortController()
const as: Record<string, string> = {}
beforeAll(async () => {
  api = await startRevocationApi({ callerPerSecond: 100_000 })
  const { log } = createTelemetry({ level: 'silent' })
  engine = createRevoke({
    db: api.db, pace: createPace({ readInteractiveAge: () => readInteractiveAge(api.db) }), enforce: async () => {}, readRuleOnStream: async () => null,
    wakeRoute: () => {}, signal: stopping.signal, log,
  })
  as['instance'] = await api.bearer({ sub: 'admin', permissions: ['session.delete'] })
  as['o1'] = await api.bearer({ sub: 'o1-admin', permissions: ['session.delete'], org: 'o1' })
  as['o2'] = await api.bearer({ sub: 'o2-admin', permissions: ['session.delete'], org: 'o2' })
  as['anna'] = await api.bearer({ sub: 'anna' })
  as['nobody'] = await api.bearer({ sub: 'nobody' })
  as['stranger'] = `Bearer ${await api.stranger.token({ sub: 'admin', permissions: ['session.delete'] })}`
})
afterAll(async () => {
  stopping.abort()
  await engine.stop()
  await api.close()
})

let made = 0
const seed = async (session: Partial<SeedSession> = {}): Promise<string> => {
  const id = `async-${made++}`
  await seedSessions(api.database.sql, [{ id, issuer: api.issuer.url, userId: 'anna', resourceOwner: 'o1', ...session }])
  return id
}
const end = (id: string, who: string, { prefer = 'respond-async', payload }: { prefer?: string; payload?: object } = {}) =>
  api.delete(id, { as: as[who], headers: { prefer }, ...(payload === undefined ? {} : { payload: JSON.stringify(payload) }) })
const stateOf = async (id: string) => (await api.database.sql.query('SELECT state FROM sessions WHERE id = $1', [id])).rows[0]?.state as string

describe('a DELETE that prefers not to wait', () => {
  it('G9: is answered 202 with what can be watched, and ends the session', async () => {
    const id = await seed()
    const answer = await end(id, 'instance')
    expect([answer.statusCode, answer.headers['preference-applied']]).toEqual([202, 'respond-async'])
    const { name, done, metadata } = answer.json()
    expect(answer.headers['location']).toBe(`/v1/${name}`)
    expect([done, metadata]).toEqual([false, expect.objectContaining({
      state: 'running', mode: 'logout', reason: null, containment: 'rows', sessions: { expected: '1', expectedExact: true, matched: '0', terminated: '0' },
    })])
    expect(metadata.filter).toMatchObject({ sessionIds: [id], includeExpired: true })
    expect(await stateOf(id)).toBe('active')
    expect(api.bulkWoken).toContain(name.replace('revocations/', ''))
    await engine.advance(name.replace('revocations/', ''))
    const seen = await api.call('GET', answer.headers['location'] ?? '', { as: as['instance'] ?? '' })
    expect(seen.json()).toMatchObject({ done: true, response: { remaining: '0' }, metadata: { sessions: { matched: '1', terminated: '1' }, committedTime: expect.any(String) } })
    expect(await stateOf(id)).toBe('terminated')
  })

  it('wins over wait, in whichever order', async () => {
    for (const prefer of ['wait=5, respond-async', 'respond-async; wait=5', 'RESPOND-ASYNC,wait=5']) {
      const answer = await end(await seed(), 'instance', { prefer })
      expect([answer.statusCode, answer.headers['preference-applied']]).toEqual([202, 'respond-async'])
    }
  })

  it('is answered 200 with the details where the session has ended already', async () => {
    for (const who of ['instance', 'o1', 'anna']) {
      const id = await seed()
      const first = await api.delete(id, { as: as['instance'] })
      const before = await api.accepted()
      const again = await end(id, who)
      expect([again.statusCode, again.body, again.headers['preference-applied']]).toEqual([200, first.body, undefined])
      expect(await api.accepted()).toBe(before)
    }
  })

  it('ends what has expired, and what says it was born in the future', async () => {
    const expired = await seed({ expiresInSeconds: -60 })
    const unborn = await seed()
    await api.database.sql.query(`UPDATE sessions SET born = now() + interval '1 hour' WHERE id = $1`, [unborn])
    for (const id of [expired, unborn]) {
      await engine.advance((await end(id, 'instance')).json().name.replace('revocations/', ''))
      expect(await stateOf(id)).toBe('terminated')
    }
  })

  it('G6: is refused as any DELETE is, in the same bytes, and then nothing is accepted', async () => {
    const token = newSessionToken()
    const sessions = { mine: await seed({ tokenHash: token.hash }), theirs: await seed({ userId: 'bert' }), unknown: 'not-there', foreign: await seed({ issuer: api.stranger.url }) }
    const before = await api.accepted()
    const payloads = [undefined, { sessionToken: 'wrong' }, { sessionToken: newSessionToken().token }]
    let refused = 0
    // Those first who may end the least.
    for (const who of Object.keys(as).toReversed()) {
      for (const id of Object.values(sessions)) {
        for (const payload of payloads) {
          const plain = await end(id, who, { prefer: 'return=minimal', ...(payload === undefined ? {} : { payload }) })
          if (plain.statusCode === 200) continue
          const answer = await end(id, who, payload === undefined ? {} : { payload })
          expect([answer.statusCode, answer.body], `${who} ${id}`).toEqual([plain.statusCode, plain.body])
          refused += 1
        }
      }
    }
    expect(refused).toBeGreaterThan(60)
    expect(await api.accepted()).toBe(before)
    expect((await end('x'.repeat(201), 'instance')).statusCode).toBe(400)
    expect((await end('x', 'instance', { payload: [] })).statusCode).toBe(400)
  })

  it('G6: is seen by who asked, and steered by who may', async () => {
    const { token, hash } = newSessionToken()
    expect(hashSessionToken(token)).toEqual(Buffer.from(hash))
    const reader = async (org?: string) => api.bearer({ sub: 'reader', permissions: ['revocation.read', 'revocation.write'], ...(org === undefined ? {} : { org }) })
    const cases: [string, Record<string, boolean>, object?][] = [
      // By whom, and who sees it: another in the organization only where it was the organization's permission.
      ['anna', { anna: true, nobody: false, o1: false, whole: true }],
      ['o1', { anna: false, nobody: false, o1: true, whole: true }],
      ['instance', { anna: false, nobody: false, o1: false, whole: true }],
      ['nobody', { anna: false, nobody: true, o1: false, whole: true }, { sessionToken: token }],
      ['o2', { anna: false, nobody: false, o1: false, whole: true }, { sessionToken: token }],
    ]
    for (const [who, sees, payload] of cases) {
      const id = await seed(payload === undefined ? {} : { tokenHash: hash })
      const answer = await end(id, who, payload === undefined ? {} : { payload })
      expect(answer.statusCode, who).toBe(202)
      const url = answer.headers['location'] ?? ''
      expect((await api.call('GET', url, { as: as[who] ?? '' })).statusCode).toBe(200)
      for (const [viewer, isSeen] of Object.entries(sees)) {
        const viewing = { anna: as['anna'] ?? '', nobody: as['nobody'] ?? '', o1: await reader('o1'), whole: await reader() }[viewer] ?? ''
        expect((await api.call('GET', url, { as: viewing })).statusCode === 200, `${viewer} looks at that of ${who}`).toBe(isSeen)
      }
      expect((await api.call('POST', `${url}:cancel`, { as: as[who] ?? '' })).statusCode).toBe(403)
      expect((await api.call('POST', `${url}:cancel`, { as: await reader() })).json()).toMatchObject({ metadata: { state: 'cancelled' } })
      expect(await stateOf(id)).toBe('active')
    }
  })

  it('is made at once instead while a thousand revocations are under way', async () => {
    await api.database.sql.query(
      `INSERT INTO revocations (id, mode, actor_issuer, actor_subject, issuers, instance, organizations, filter, exclude, containment, cutoff_time, expected, expected_exact)
       SELECT gen_random_uuid(), 'logout', 'x', 'crowd', '{}', true, '{}', '{}', '{}', 'rows', now(), 0, true FROM generate_series(1, 1000)`)
    const id = await seed()
    const answer = await end(id, 'instance')
    expect([answer.statusCode, answer.headers['preference-applied'], answer.json().details.sequence]).toEqual([200, undefined, '2'])
    expect(await stateOf(id)).toBe('terminated')
    await api.database.sql.query(`DELETE FROM revocations WHERE actor_subject = 'crowd'`)
    expect((await end(await seed(), 'instance')).statusCode).toBe(202)
  })
})
