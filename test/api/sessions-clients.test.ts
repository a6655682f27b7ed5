/** Participants added to a session over HTTP, before and after its end. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { CurfewError } from '../../src/errors.ts'
import { startSessionApi } from './session-api.ts'
import type { SessionApi } from './session-api.ts'

let api: SessionApi
let registrar: string
let admin: string

const put = (id: string) => api.call('PUT', `/v1/sessions/${id}`, { as: registrar, body: { userId: 'u1', resourceOwner: 'o1' } })
const join = (id: string, clientId: string, body?: unknown, as = registrar) =>
  api.call('PUT', `/v1/sessions/${id}/clients/${encodeURIComponent(clientId)}`, { as, body })
const bytes = (kind: ConstructorParameters<typeof CurfewError>[0]): string => JSON.stringify(new CurfewError(kind).body())

beforeAll(async () => {
  api = await startSessionApi()
  registrar = await api.bearer({ sub: 'registrar', permissions: ['session.write'] })
  admin = await api.bearer({ sub: 'admin', permissions: ['session.delete'] })
})
afterAll(() => api.close())

describe('PUT /v1/sessions/{id}/clients/{clientId}', () => {
  it('adds a participant, once, with a body or without', async () => {
    await put('joined')
    const first = await join('joined', 'https://rp.example/ä')
    expect([first.statusCode, first.json()]).toEqual([200, { details: { sequence: '2', changeDate: expect.any(String), resourceOwner: 'o1' } }])
    expect((await join('joined', 'https://rp.example/ä', {})).body).toBe(first.body)
    expect((await join('joined', 'other', { sid: 's', sub: 'p' })).json().details.sequence).toBe('3')
  })

  it('G5: answers 409 after the termination, and the client is told', async () => {
    await api.database.sql.query(
      `INSERT INTO receivers (id, type, url, issuer, client_id) VALUES ('rp', 'backchannel_logout', 'https://rp.example/logout', $1, 'rp')`,
      [api.issuer.url],
    )
    await put('late')
    await api.delete('late', { as: admin })
    const answer = await join('late', 'rp', { sid: 's' })
    expect([answer.statusCode, answer.body]).toEqual([409, bytes('session_terminated')])
    expect(api.woken).toEqual(['rp'])
    const { rows } = await api.database.sql.query(`SELECT receiver_id, sid FROM deliveries WHERE session_id = 'late'`)
    expect(rows).toEqual([{ receiver_id: 'rp', sid: 's' }])
  })

  it('answers 404 to an unknown session and 400 to a bad body', async () => {
    expect((await join('nowhere', 'rp')).body).toBe(bytes('session_not_found'))
    for (const body of ['[]', 'null', { sid: '' }, { sid: 1 }, { other: 'x' }]) expect((await join('joined', 'rp', body)).statusCode).toBe(400)
  })
})
