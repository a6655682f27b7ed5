/**
 * Secrets that are used, misused and mistaken while parts fail, and then looked for wherever things are written down.
 * Fault F65.
 */
import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { exportJWK, generateKeyPair } from 'jose'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { createSigner } from '../../src/channels/signing.ts'
import { createKeyring } from '../../src/keys.ts'
import { openDatabase } from '../../src/store/postgres.ts'
import { startIssuer } from '../harness/issuer.ts'
import type { TestIssuer } from '../harness/issuer.ts'
import { answer, reset, startReceiver } from '../harness/receiver.ts'
import type { TestReceiver } from '../harness/receiver.ts'
import type { ServiceProcess } from '../harness/processes.ts'
import { redisMissing } from '../harness/redis.ts'
import type { TestRedis } from '../harness/redis.ts'
import { startCluster } from './cluster.ts'
import type { Cluster } from './cluster.ts'

/** What a secret looks like, however it was written down. */
const formsOf = (secret: string, bytes: Buffer): string[] => [
  secret, encodeURIComponent(secret),
  ...[bytes, Buffer.from(secret)].flatMap((each) => [each.toString('base64').replace(/=+$/, ''), each.toString('base64url'), each.toString('hex'), each.toString('latin1')]),
]

describe.skipIf(redisMissing)('G10: secrets', () => {
  let cluster: Cluster
  let redis: TestRedis
  let opaqueIssuer: TestIssuer
  let receivers: TestReceiver[]
  let api: ServiceProcess
  let worker: ServiceProcess
  /** By name, all forms that must be found nowhere. */
  const canaries = new Map<string, string[]>()
  const keep = (name: string, secret: string, bytes = Buffer.from(secret)) => {
    canaries.set(name, formsOf(secret, bytes))
    return secret
  }
  const keepJwt = (name: string, token: string) => {
    keep(name, token)
    keep(`${name}, its signature`, token.split('.')[2] ?? token)
    return token
  }
  const keepToken = (name: string, token: string) => keep(name, token, Buffer.from(token, 'base64url'))

  let ended = ''
  let endedToken = ''
  /** Everything that was written down, by where. */
  const written = new Map<string, string[]>()
  const write = (where: string, ...texts: string[]) => void written.set(where, [...(written.get(where) ?? []), ...texts])

  beforeAll(async () => {
    opaqueIssuer = await startIssuer()
    const clientSecret = keep('client secret for introspection', randomUUID())
    const queueSecret = randomBytes(32)
    const encryptionKey = randomBytes(32)
    const forIntrospection = opaqueIssuer.introspectionEntry()
    cluster = await startCluster({
      settings: {
        LOG_LEVEL: 'trace',
        QUEUE_SECRET: keep('QUEUE_SECRET', queueSecret.toString('base64'), queueSecret),
        KEY_ENCRYPTION_KEY: keep('KEY_ENCRYPTION_KEY', encryptionKey.toString('base64'), encryptionKey),
      },
      moreIssuers: [{ ...forIntrospection, introspection: { endpoint: opaqueIssuer.introspectionEndpoint, clientId: 'curfew', clientSecret } }],
    })
    if (cluster.redis === null) throw new Error('no Redis')
    redis = cluster.redis
    keepJwt('bearer token', cluster.token)

    const { privateKey } = await generateKeyPair('RS256', { extractable: true })
    const jwk = { ...(await exportJWK(privateKey)), kid: 'canary', alg: 'RS256' }
    for (const part of ['d', 'p', 'q', 'dp', 'dq', 'qi'] as const) keepToken(`signing key's ${part}`, jwk[part] ?? '')
    const db = openDatabase({ url: cluster.database.url, name: 'import', max: 1 })
    await createSigner({ db, keyring: createKeyring({ encryptionKey, encryptionKeyPrevious: null }) }).importKey(cluster.issuer.url, jwk)
    await db.$disconnect()

    const monitor = await redis.client.monitor()
    monitor.on('error', () => {})
    monitor.on('monitor', (_time: string, words: string[]) => write('MONITOR', words.join(' ')))
    receivers = await Promise.all([startReceiver(), startReceiver(), startReceiver()])
    receivers[1]?.always(answer(500, { body: 'no' }))
    receivers[2]?.always(reset)
    ;[api, worker] = await Promise.all([cluster.start('api'), cluster.start('worker')])
    await cluster.untilQueued(api)
    for (const [at, { url }] of receivers.entries()) await cluster.putReceiver(api, `app${at}`, url)
  })
  afterAll(async () => {
    await cluster.stop()
    await Promise.all(receivers.map((receiver) => receiver.close()))
    await opaqueIssuer.close()
  })

  /** A request whose answer is written down too, unless it is the one place where a secret may be. */
  const call = async (method: string, path: string, options: { body?: string; bearer?: string; authorization?: string; tells?: boolean } = {}) => {
    const { body, bearer = cluster.token, authorization = `Bearer ${bearer}`, tells = false } = options
    const response = await fetch(`${api.apiUrl}${path}`, { method, headers: { authorization }, ...(body === undefined ? {} : { body }) })
    const text = await response.text()
    if (!tells) write('answers', JSON.stringify([...response.headers]), text)
    return { status: response.status, text }
  }

  const clients = [0, 1, 2].map((at) => ({ clientId: `app${at}` }))
  const logIn = async (id: string = randomUUID()) => {
    const body = JSON.stringify({ userId: 'alice', resourceOwner: 'o1', clients })
    const { status, text } = await call('PUT', `/v1/sessions/${id}`, { body, tells: true })
    expect(status).toBe(201)
    const { sessionToken } = JSON.parse(text) as { sessionToken: string }
    return { id, sessionToken: keepToken(`session token ${canaries.size}`, sessionToken) }
  }
  const end = (id: string, sessionToken: string, bearer?: string) =>
    call('DELETE', `/v2/sessions/${id}`, { body: JSON.stringify({ sessionToken }), ...(bearer === undefined ? {} : { bearer }) })

  it('are used, right and wrong', async () => {
    const user = keepJwt('token of a user', await cluster.issuer.token({ sub: 'alice' }))
    const opaque = keep('opaque token', opaqueIssuer.opaque({ sub: 'operator', permissions: ['session.delete'] }))
    const unknown = keep('unknown opaque token', randomUUID())
    const tampered = keepJwt('tampered token', `${cluster.token.slice(0, -12)}AAAAAAAAAAAA`)
    const wrong = keepToken('wrong session token', randomBytes(32).toString('base64url'))

    const { id, sessionToken } = await logIn()
    ended = id
    const rotated = await call('PATCH', `/v1/sessions/${id}`, { body: '{"metadata":{"a":"Yg=="}}', tells: true })
    const second = keepToken('rotated session token', (JSON.parse(rotated.text) as { sessionToken: string }).sessionToken)
    endedToken = second
    expect((await end(id, wrong, user)).status).toBe(403)
    expect((await end(id, sessionToken, user)).status).toBe(403)
    expect((await end(randomUUID(), second)).status).toBe(403)
    expect((await call('DELETE', `/v2/sessions/${id}`, { body: `{"sessionToken":"${second}"` })).status).toBe(400)
    expect((await call('DELETE', `/v2/sessions/${id}`, { body: JSON.stringify({ sessionToken: [second] }) })).status).toBe(400)
    for (const bearer of [tampered, unknown]) expect((await end(id, second, bearer)).status).toBe(401)
    expect((await call('DELETE', `/v2/sessions/${id}`, { authorization: `Basic ${second}` })).status).toBe(401)
    expect((await call('GET', `/v2/sessions/${id}?access_token=${user}`, { bearer: user })).status).toBeLessThan(500)
    expect((await call('GET', `/v1/nowhere/${second}`)).status).toBe(404)
    expect((await end(id, second, opaque)).status).toBe(200)
    expect((await end(id, second, user)).status).toBe(200)
    expect((await call('PUT', `/v1/sessions/${id}`, { body: '{"userId":"alice","resourceOwner":"o1"}' })).status).toBe(409)
  })

  it('are used while Redis and Postgres fail', async () => {
    const logins = await Promise.all(Array.from({ length: 12 }, () => logIn()))
    const endSome = (from: number) => Promise.all(logins.slice(from, from + 4).map(({ id, sessionToken }) => end(id, sessionToken)))
    redis.freeze()
    await endSome(0)
    redis.thaw()
    await redis.kill()
    await endSome(4)
    await redis.restart({ empty: false })
    // Errors of the database's own, with whatever it says.
    await cluster.database.sql.query(
      `CREATE FUNCTION test_fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no: %', NEW; END $$;
       CREATE TRIGGER test_fail BEFORE INSERT OR UPDATE ON sessions FOR EACH ROW WHEN (NEW.user_id = 'mallory') EXECUTE FUNCTION test_fail()`)
    const failed = await call('PUT', `/v1/sessions/${randomUUID()}`, { body: '{"userId":"mallory","resourceOwner":"o1"}' })
    expect(failed.status).toBeGreaterThanOrEqual(500)
    const ending = endSome(8)
    await cluster.database.sql.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'curfew-%'`)
    await ending
    for (const { id, sessionToken } of logins) expect((await end(id, sessionToken)).status).toBe(200)
    await cluster.untilQueued(api)
    await vi.waitFor(() => expect(receivers.every(({ requests }) => requests.length > 0)).toBe(true), { timeout: 15_000 })
  })

  it('are found in no log, metric, answer, table or key of Redis', async () => {
    for (const process of [api, worker]) write('metrics', await (await fetch(`${process.opsUrl}/metrics`)).text())
    await Promise.all([api.stop(), worker.stop()])
    write('logs', ...api.lines, ...worker.lines)

    const [, folder = ''] = await redis.client.config('GET', 'dir') as string[]
    const files = (await readdir(folder, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile())
    for (const file of files) write('Redis’ files', (await readFile(join(file.parentPath, file.name))).toString('latin1'))

    const { rows: tables } = await cluster.database.sql.query<{ name: string }>(
      `SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')`)
    for (const { name } of tables) {
      const { rows } = await cluster.database.sql.query<{ row: string }>(`SELECT t::text AS row FROM ${name} t`)
      write('tables', ...rows.map(({ row }) => row))
    }

    // That each place was looked through: what it may know is found there.
    const knows = (where: string, what: string) => (written.get(where) ?? []).some((text) => text.includes(what))
    expect([
      knows('MONITOR', 'batch'), knows('Redis’ files', 'curfew:{interactive}'), knows('metrics', 'curfew_'), knows('answers', 'COMMAND-sGr42'),
      knows('logs', 'queue.left'), knows('tables', ended), knows('tables', createHash('sha256').update(endedToken).digest('hex')),
    ]).toEqual(Array.from({ length: 7 }, () => true))
    expect(tables.map(({ name }) => name)).toEqual(expect.arrayContaining(['public.sessions', 'public.signing_keys', 'bullmq.job']))

    const found: string[] = []
    for (const [where, texts] of written) {
      const all = texts.join('\n')
      for (const [name, forms] of canaries) if (forms.some((form) => all.includes(form))) found.push(`${name} in ${where}`)
    }
    expect(found).toEqual([])
    expect(canaries.size).toBeGreaterThan(25)
  })
})
