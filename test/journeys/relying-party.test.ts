import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { readConfig } from '../../src/config.ts'
import { createSigner } from '../../src/channels/signing.ts'
import { createDemoIssuer } from '../../src/dev/demo-issuer.ts'
import type { DemoIssuer, DemoLogin } from '../../src/dev/demo-issuer.ts'
import { createKeyring } from '../../src/keys.ts'
import { createService } from '../../src/service.ts'
import type { Service } from '../../src/service.ts'
import { openDatabase } from '../../src/store/postgres.ts'
import { createTelemetry } from '../../src/telemetry.ts'
import { reserveOpenidApp } from '../harness/openid-app.ts'
import type { OpenidApp } from '../harness/openid-app.ts'
import { freePort } from '../harness/ports.ts'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'
import { settingsFor } from '../harness/processes.ts'

const CLIENT = { id: 'shop', secret: 'a secret of the shop' }

describe('a relying party that nobody here wrote: express-openid-connect with back-channel logout', () => {
  let database: TestDatabase
  let issuer: DemoIssuer
  let app: OpenidApp
  let service: Service
  let apiUrl: string
  let admin: string
  const logins: DemoLogin[] = []

  const api = (method: string, path: string, body?: unknown, headers: Record<string, string> = {}) =>
    fetch(`${apiUrl}${path}`, {
      method,
      headers: { authorization: `Bearer ${admin}`, 'content-type': 'application/json', ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })

  beforeAll(async () => {
    database = await createDatabase()
    const reserved = await reserveOpenidApp()
    const { privateKey } = await generateKeyPair('RS256', { extractable: true })
    const key = { ...(await exportJWK(privateKey)), kid: 'issuer-key', alg: 'RS256', use: 'sig' }
    const port = await freePort()
    const url = `http://127.0.0.1:${port}`
    issuer = await createDemoIssuer({
      host: '127.0.0.1', port, url, audience: 'curfew', key,
      users: [{ id: 'alice', name: 'Alice' }, { id: 'bob', name: 'Bob' }],
      client: { ...CLIENT, redirectUri: reserved.redirectUri },
      register: async (login) => {
        logins.push(login)
        const response = await api('PUT', `/v1/sessions/${login.sessionId}`, { userId: login.user.id, resourceOwner: 'o1', clients: [{ clientId: login.clientId }] })
        expect(response.status).toBe(201)
      },
    })
    await issuer.start()
    const config = readConfig(settingsFor({ databaseUrl: database.url, redisUrl: null, issuers: [{ issuer: url, audience: 'curfew', instance: true, jwksUri: `${url}/jwks` }] }))
    // As `curfew keys import` does: the issuer's JWKS carries the key with which Curfew signs.
    const db = openDatabase({ url: database.url, name: 'import', max: 1 })
    await createSigner({ db, keyring: createKeyring(config.keys) }).importKey(url, key)
    await db.$disconnect()
    service = await createService(config, { telemetry: createTelemetry({ level: 'silent' }) })
    apiUrl = (await service.start()).apiUrl ?? ''
    admin = await issuer.accessToken({ sub: 'admin', client_id: 'console', permissions: ['session.write', 'session.delete', 'receiver.read', 'receiver.write'] })
    app = reserved.start({ issuerUrl: url, clientId: CLIENT.id, clientSecret: CLIENT.secret })
    const response = await api('PUT', '/v1/receivers/shop', { type: 'backchannel_logout', url: `${app.url}/backchannel-logout`, clientId: CLIENT.id })
    expect([200, 201]).toContain(response.status)
  })
  afterAll(async () => {
    await service.stop()
    await app.close()
    await issuer.stop()
    await database.drop()
  })

  it('G5: a signed-in user is out after the DELETE, and another user is not', async () => {
    const alice = await app.logIn('alice')
    const session = logins.at(-1)?.sessionId ?? ''
    const bob = await app.logIn('bob')
    expect(await app.whoAmI(alice)).toBe('alice')
    const response = await api('DELETE', `/v2/sessions/${session}`, undefined, { prefer: 'wait=10' })
    expect(response.status).toBe(200)
    expect(response.headers.get('preference-applied')).toBe('wait=10')
    expect(await response.json()).toMatchObject({ details: { sequence: '2' }, deliveries: { total: 1, acknowledged: 1, pending: 0 } })
    expect(await app.whoAmI(alice)).toBeNull()
    expect(await app.whoAmI(bob)).toBe('bob')
  })

  it('ends one session of a user and leaves the same user’s other session alone', async () => {
    const laptop = await app.logIn('alice')
    const session = logins.at(-1)?.sessionId ?? ''
    const phone = await app.logIn('alice')
    await api('DELETE', `/v2/sessions/${session}`)
    await vi.waitFor(async () => expect(await app.whoAmI(laptop)).toBeNull(), { timeout: 10_000 })
    expect(await app.whoAmI(phone)).toBe('alice')
  })

  it('refuses a logout token that was not signed by its issuer', async () => {
    const alice = await app.logIn('alice')
    const { privateKey } = await generateKeyPair('RS256')
    const forged = await new SignJWT({ sid: logins.at(-1)?.sessionId ?? '', events: { 'http://schemas.openid.net/event/backchannel-logout': {} } })
      .setProtectedHeader({ alg: 'RS256', typ: 'logout+jwt', kid: 'issuer-key' })
      .setIssuer(issuer.url).setAudience(CLIENT.id).setIssuedAt().setExpirationTime('2m').setJti('forged').sign(privateKey)
    const answer = await fetch(`${app.url}/backchannel-logout`, { method: 'POST', body: new URLSearchParams({ logout_token: forged }) })
    expect(answer.status).toBe(400)
    expect(await app.whoAmI(alice)).toBe('alice')
  })

  it('lists the delivery with its outcome', async () => {
    const { deliveries } = (await (await api('GET', '/v1/receivers/shop/deliveries?state=acknowledged')).json()) as { deliveries: unknown[] }
    expect(deliveries.length).toBeGreaterThan(0)
    expect(deliveries[0]).toMatchObject({ state: 'acknowledged', attempts: 1, clientId: CLIENT.id })
  })
})
