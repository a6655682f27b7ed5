import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startRevocationApi } from './revocation-rig.ts'
import type { RevocationApi } from './revocation-rig.ts'

let api: RevocationApi
let responder: string
const ids: string[] = []
beforeAll(async () => {
  api = await startRevocationApi()
  responder = await api.bearer({ permissions: ['revocation.write', 'revocation.read'], sub: 'responder', org: 'o1' })
  for (let n = 0; n < 7; n += 1) {
    const as = n % 2 === 0 ? api.admin : responder
    ids.push(await api.accept({ filter: { sessionIds: [`s${n}`] }, ticket: `INC-${n % 3}`, mode: n === 3 ? 'logout' : 'revoke' }, as))
  }
  await api.call('POST', `/v1/revocations/${ids[1]}:pause`)
  await api.call('POST', `/v1/revocations/${ids[2]}:cancel`)
})
afterAll(() => api.close())

const list = async (query = '', as = api.admin): Promise<{ ids: string[]; next: string | undefined }> => {
  const answer = await api.call('GET', `/v1/revocations?${query}`, { as })
  expect(answer.statusCode).toBe(200)
  const { revocations, nextPageToken } = answer.json()
  return { ids: revocations.map(({ name }: { name: string }) => name.replace('revocations/', '')), next: nextPageToken }
}
const all = async (query = '', as = api.admin): Promise<string[]> => {
  const found: string[] = []
  for (let token: string | undefined = ''; token !== undefined;) {
    const page = await list(`${query}&pageToken=${token}`, as)
    found.push(...page.ids)
    token = page.next
  }
  return found
}
const numbers = (found: readonly string[]) => found.map((id) => ids.indexOf(id))

describe('a list of revocations', () => {
  it('comes newest first, page by page, without their filters', async () => {
    expect(numbers(await all('pageSize=3'))).toEqual([6, 5, 4, 3, 2, 1, 0])
    expect(numbers((await list('pageSize=7')).ids)).toEqual([6, 5, 4, 3, 2, 1, 0])
    expect((await list('pageSize=7')).next).toBeUndefined()
    const { metadata } = (await api.call('GET', '/v1/revocations')).json().revocations[0]
    expect(metadata).toMatchObject({ state: 'running', sessions: { matched: '0' } })
    expect(metadata).not.toHaveProperty('filter')
  })

  it('is filtered by state, mode, ticket, who asked and when', async () => {
    expect(numbers(await all('state=paused&state=cancelled'))).toEqual([2, 1])
    expect(numbers(await all('state=done'))).toEqual([])
    expect(numbers(await all('mode=logout'))).toEqual([3])
    expect(numbers(await all('ticket=INC-1&pageSize=1'))).toEqual([4, 1])
    expect(numbers(await all('actor=responder'))).toEqual([5, 3, 1])
    const { createTime } = (await api.call('GET', `/v1/revocations/${ids[4]}`)).json().metadata
    expect(numbers(await all(`createdFrom=${createTime}`))).toContain(4)
    expect(numbers(await all(`createdBefore=${createTime}`))).not.toContain(4)
    expect(numbers(await all(`createdFrom=2400-01-01T00:00:00Z`))).toEqual([])
  })

  it.each(['stat=done', 'state=done&Mode=revoke', '=done'])('G12: is refused for an unknown filter, which is named: %s', async (query) => {
    const answer = await api.call('GET', `/v1/revocations?${query}`)
    const unknown = query.split('&').at(-1)?.split('=')[0]
    expect([answer.statusCode, answer.json()]).toEqual([400, { code: 3, message: `Unrecognized key: "${unknown}"` }])
  })

  it('has what the caller sees, and tells nothing of what lies between', async () => {
    expect(numbers(await all('pageSize=1', responder))).toEqual([5, 3, 1])
    const none = await api.bearer({ sub: 'responder' })
    expect(numbers(await all('', none))).toEqual([5, 3, 1])
    expect(await all('', await api.bearer({ sub: 'nobody' }))).toEqual([])
  })

  it('finds the caller’s own also behind thousands of others', async () => {
    await api.database.sql.query(
      `INSERT INTO revocations (id, mode, actor_issuer, actor_subject, issuers, instance, organizations, filter, exclude, containment, cutoff_time, expected, expected_exact)
       SELECT (lpad(to_hex(2e12::bigint + n / 3), 12, '0') || '70008' || lpad(to_hex(n), 15, '0'))::uuid, 'revoke', 'elsewhere', 'other', '{elsewhere}', n % 2 = 0,
         CASE WHEN n % 2 = 0 THEN '{}' ELSE '{o2}' END::text[], '{}', '{}', 'rows', now(), 0, true
       FROM generate_series(1, 25000) n`)
    expect(numbers(await all('', responder))).toEqual([5, 3, 1])
    expect(numbers(await all('pageSize=2'))).toEqual([6, 5, 4, 3, 2, 1, 0])
    const { next } = await list('', responder)
    // Where the next page begins is a millisecond, not somebody's id.
    expect(Buffer.from(next ?? '', 'base64url').toString()).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-0000-0000-000000000000$/)
  })
})
