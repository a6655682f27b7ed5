/** Nobody previews, ends, sees or steers beyond what they may: every kind of caller against every kind of session. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { seedSessions } from '../harness/seed.ts'
import { startRevocationApi } from './revocation-rig.ts'
import type { RevocationApi } from './revocation-rig.ts'

let api: RevocationApi
const callers: Record<string, string> = {}
/** Whoever asks: it would end their own tokens. */
const exclude = { userIds: ['admin', 'x', 'xy', 'reader'] }
/** Organization and user of each session; those of the stranger's issuer have the same names. */
const sessions = [['x1', 'x', 'u1'], ['x2', 'x', 'u2'], ['y1', 'y', 'u1'], ['y2', 'y', 'u3'], ['z1', 'z', 'u1']] as const

beforeAll(async () => {
  api = await startRevocationApi({ callerPerSecond: 100_000 })
  await seedSessions(api.database.sql, sessions.flatMap(([id, resourceOwner, userId]) => [
    { id, issuer: api.issuer.url, resourceOwner, userId, clients: [{ clientId: `client-${resourceOwner}` }] },
    { id: `stranger-${id}`, issuer: api.stranger.url, resourceOwner, userId, clients: [{ clientId: `client-${resourceOwner}` }] },
  ]))
  for (const owner of ['x', 'y', 'z', null]) {
    for (const issuer of [api.issuer.url, api.stranger.url]) {
      const of = issuer === api.issuer.url ? 'issuer' : 'stranger'
      await api.database.sql.query(
        `INSERT INTO receivers (id, type, url, issuer, resource_owner, events, secret) VALUES ($1, 'webhook', 'https://r.example', $2, $3, '{session.terminated}', 'x')`,
        [`${of}-${owner ?? 'all'}`, issuer, owner])
    }
  }
  const both = { permissions: ['revocation.write', 'revocation.read'] }
  callers['instance'] = await api.bearer({ ...both, sub: 'admin' })
  callers['x'] = await api.bearer({ ...both, sub: 'x', org: 'x' })
  callers['xy'] = await api.bearer({ ...both, sub: 'xy', org: ['x', 'y'] })
  callers['stranger'] = `Bearer ${await api.stranger.token({ ...both, sub: 'admin' })}`
  callers['reader of x'] = await api.bearer({ ...both, permissions: ['revocation.read'], sub: 'reader', org: 'x' })
})
afterAll(() => api.close())

const reached: Record<string, (organization: string) => boolean> = {
  instance: () => true, x: (organization) => organization === 'x', xy: (organization) => organization !== 'z', stranger: () => true,
}
const filters = [
  { all: true }, { resourceOwners: ['x'] }, { resourceOwners: ['y', 'z'] }, { userIds: ['u1'] }, { sessionIds: ['x1', 'y1', 'z1', 'stranger-x1', 'stranger-z1'] },
  { clientIds: ['client-x', 'client-z'] }, { bornBefore: '2400-01-01T00:00:00Z' }, { bornAfter: '2020-01-01T00:00:00Z' },
]
const matches = (filter: (typeof filters)[number], [id, organization, user]: readonly [string, string, string], prefix: string): boolean => {
  const { resourceOwners, userIds, sessionIds, clientIds } = filter as { resourceOwners?: string[]; userIds?: string[]; sessionIds?: string[]; clientIds?: string[] }
  return (resourceOwners?.includes(organization) ?? true) && (userIds?.includes(user) ?? true)
    && (sessionIds?.includes(prefix + id) ?? true) && (clientIds?.includes(`client-${organization}`) ?? true)
}

describe('G6: of another organization or issuer', () => {
  it.each(Object.keys(reached))('%s previews, counts and contains nothing', async (who) => {
    const prefix = who === 'stranger' ? 'stranger-' : ''
    const issuer = who === 'stranger' ? api.stranger.url : api.issuer.url
    const as = callers[who] ?? ''
    for (const filter of filters) {
      const expected = sessions.filter((session) => (reached[who]?.(session[1]) ?? false) && matches(filter, session, prefix))
      const organizations = [...new Set(expected.map(([, organization]) => organization))].sort()
      const seen = (await api.post({ filter, exclude, reason: 'test', validateOnly: true }, { as })).json()
      const label = `${who} ${JSON.stringify(filter)}`
      expect(seen.sessions, label).toEqual({ count: String(expected.length), exact: true })
      expect(seen.sample.map(({ sessionId }: { sessionId: string }) => sessionId).sort(), label).toEqual(expected.map(([id]) => prefix + id))
      expect(seen.organizations.map(({ resourceOwner }: { resourceOwner: string }) => resourceOwner).sort(), label).toEqual(organizations)
      expect(seen.clients.map(({ clientId }: { clientId: string }) => clientId).sort(), label).toEqual(organizations.map((organization) => `client-${organization}`))
      // A receiver of the whole instance is seen by who reaches it.
      const of = who === 'stranger' ? 'stranger' : 'issuer'
      const receivers = organizations.map((organization) => `${of}-${organization}`)
      const whole = expected.length > 0 && (who === 'instance' || who === 'stranger') ? [`${of}-all`] : []
      expect(seen.receivers.map(({ id }: { id: string }) => id).sort(), label).toEqual([...whole, ...receivers].sort())
      expect(seen.expectedLogins, label).toBe(new Set(expected.map(([, , user]) => user)).size)

      const id = await api.accept({ filter, exclude }, as)
      const { metadata } = (await api.call('GET', `/v1/revocations/${id}`, { as })).json()
      expect(metadata.sessions.expected, label).toBe(String(expected.length))
      expect([metadata.issuers, metadata.organizations], label).toEqual([[issuer], { x: ['x'], xy: ['x', 'y'] }[who] ?? null])
      const { rows } = await api.database.sql.query<{ issuer: string; resource_owner: string | null }>('SELECT issuer, resource_owner FROM cutoff_rules WHERE revocation_id = $1', [id])
      for (const rule of rows) {
        expect(rule.issuer, label).toBe(issuer)
        if (metadata.organizations !== null) expect(metadata.organizations, label).toContain(rule.resource_owner)
      }
    }
  })

  it('nobody sees, follows, steers or lists a revocation', async () => {
    const ids: Record<string, string> = {}
    for (const who of Object.keys(reached)) ids[who] = await api.accept({ filter: { sessionIds: [`see-${who}`] } }, callers[who] ?? '')
    const sees: Record<string, readonly string[]> = {
      instance: ['instance', 'x', 'xy'], x: ['x'], xy: ['x', 'xy'], stranger: ['stranger'], 'reader of x': ['x'],
    }
    for (const [who, as] of Object.entries(callers)) {
      const listed = (await api.call('GET', '/v1/revocations?pageSize=200', { as })).json().revocations.map(({ name }: { name: string }) => name)
      for (const [of, id] of Object.entries(ids)) {
        const isSeen = sees[who]?.includes(of) === true
        const label = `${who} looks at that of ${of}`
        const answer = await api.call('GET', `/v1/revocations/${id}`, { as })
        expect(answer.statusCode, label).toBe(isSeen ? 200 : 404)
        expect(listed.includes(`revocations/${id}`), label).toBe(isSeen)
        if (!isSeen) {
          const unknown = await api.call('GET', '/v1/revocations/01890000-0000-7000-8000-000000000000', { as })
          expect(answer.body, label).toBe(unknown.body)
          expect((await api.call('GET', `/v1/revocations/${id}/progress`, { as })).body, label).toBe(unknown.body)
        }
        const steered = await api.call('POST', `/v1/revocations/${id}:pause`, { as })
        expect(steered.statusCode, label).toBe(isSeen ? (who === 'reader of x' ? 403 : 200) : 404)
      }
    }
  })

  it('G9: a key used in one organization is refused in another, where nothing would be ended by it', async () => {
    const asked = { filter: { userIds: ['nobody-here'] }, reason: 'the same' }
    // Beyond the rules that the tests before have set: they round up to the second that is to come.
    const later = Math.floor(Date.now() / 1_000) + 10
    const inOrganization = async (org: string) =>
      api.post(asked, { as: await api.bearer({ sub: 'responder', permissions: ['revocation.write'], org, auth_time: later }), headers: { 'idempotency-key': 'incident' } })
    const [one, again, other] = [await inOrganization('keys-1'), await inOrganization('keys-1'), await inOrganization('keys-2')]
    expect([one.statusCode, again.json().name, other.statusCode]).toEqual([202, one.json().name, 409])
  })

  it('one’s own revocation stays one’s own to see, but not to steer, where the permission has gone', async () => {
    const id = await api.accept({ filter: { userIds: ['u9'], sessionIds: ['s9'] } }, callers['xy'] ?? '')
    const less = await api.bearer({ permissions: ['revocation.write', 'revocation.read'], sub: 'xy', org: 'x' })
    const none = await api.bearer({ sub: 'xy' })
    for (const as of [less, none]) {
      expect((await api.call('GET', `/v1/revocations/${id}`, { as })).statusCode).toBe(200)
      expect((await api.call('POST', `/v1/revocations/${id}:cancel`, { as })).statusCode).toBe(403)
    }
    const namesake = `Bearer ${await api.stranger.token({ sub: 'xy' })}`
    expect((await api.call('GET', `/v1/revocations/${id}`, { as: namesake })).statusCode).toBe(403)
  })
})
