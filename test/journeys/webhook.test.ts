import { Webhook } from 'standardwebhooks'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startIssuer } from '../harness/issuer.ts'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'
import { settingsFor, startProcess } from '../harness/processes.ts'
import type { ServiceProcess } from '../harness/processes.ts'
import { answer, startReceiver } from '../harness/receiver.ts'
import type { ReceivedRequest, TestReceiver } from '../harness/receiver.ts'

describe('a webhook, through real processes', () => {
  let issuer: Awaited<ReturnType<typeof startIssuer>>
  let database: TestDatabase
  let receiver: TestReceiver
  let curfew: ServiceProcess
  let secret = ''

  beforeAll(async () => {
    issuer = await startIssuer()
    database = await createDatabase()
    receiver = await startReceiver()
    const entry = issuer.entry({ instance: true })
    curfew = await startProcess(settingsFor({ databaseUrl: database.url, redisUrl: null, issuers: [entry] }))
  })
  afterAll(async () => {
    await curfew.stop()
    await receiver.close()
    await database.drop()
    await issuer.close()
  })

  const call = async (method: string, path: string, body?: object) => {
    const token = await issuer.token({ permissions: ['session.write', 'session.delete', 'receiver.read', 'receiver.write'] })
    const response = await fetch(`${curfew.apiUrl}${path}`, {
      method, headers: { authorization: `Bearer ${token}` }, ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    return { status: response.status, body: (await response.json()) as Record<string, unknown> }
  }
  const verified = (request: ReceivedRequest | undefined) =>
    new Webhook(secret).verify(request?.body ?? '', request?.headers as Record<string, string>) as { data: { sessionId: string } }

  it('is registered, verified, told of a session’s end within its organization, and its health shows it', async () => {
    const made = await call('PUT', '/v1/receivers/audit', { type: 'webhook', url: receiver.url, resourceOwner: 'o1' })
    expect(made.status).toBe(201)
    secret = made.body['secret'] as string
    expect((await call('POST', '/v1/receivers/audit:verify')).body).toMatchObject({ outcome: 'delivered', status: 200, problems: [] })
    verified(receiver.requests[0])
    for (const [id, resourceOwner] of [['mine', 'o1'], ['theirs', 'o2']] as const) {
      expect((await call('PUT', `/v1/sessions/${id}`, { userId: 'u1', resourceOwner })).status).toBe(201)
      expect((await call('DELETE', `/v2/sessions/${id}`)).status).toBe(200)
    }
    await expect.poll(() => receiver.requests.length, { timeout: 10_000 }).toBe(2)
    expect(verified(receiver.requests[1]).data.sessionId).toBe('mine')
    await expect.poll(async () => (await call('GET', '/v1/receivers/audit')).body, { timeout: 10_000 })
      .toMatchObject({ breaker: 'closed', pending: 0, lastSuccessDate: expect.stringMatching(/Z$/) as string })
  })

  it('has its dead letters sent again, signed with the secret that it was given meanwhile', async () => {
    receiver.script(answer(308))
    await call('PUT', '/v1/sessions/refused', { userId: 'u1', resourceOwner: 'o1' })
    await call('DELETE', '/v2/sessions/refused')
    const failed = async () => (await call('GET', '/v1/receivers/audit/deliveries?state=failed')).body['deliveries']
    await expect.poll(failed, { timeout: 10_000 }).toMatchObject([{ sessionId: 'refused', clientId: null, lastOutcome: 'redirected' }])
    const told = receiver.requests.length
    secret = (await call('POST', '/v1/receivers/audit:rotateSecret')).body['secret'] as string
    expect((await call('POST', '/v1/receivers/audit:redeliver')).body).toEqual({ redelivered: 1, more: false })
    await expect.poll(() => receiver.requests.length, { timeout: 10_000 }).toBe(told + 1)
    expect(verified(receiver.requests.at(-1)).data.sessionId).toBe('refused')
  })
})
