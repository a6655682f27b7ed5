/** The commands as an operator runs them: the built entry, its words and its exit codes. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { exportJWK, exportPKCS8, generateKeyPair } from 'jose'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { curfew } from './cli/run.ts'
import { freePort } from './harness/ports.ts'
import { settingsFor, startProcess } from './harness/processes.ts'
import { createDatabase } from './harness/postgres.ts'
import type { TestDatabase } from './harness/postgres.ts'
import { redisMissing, startRedis } from './harness/redis.ts'
import { seedSessions } from './harness/seed.ts'

const issuer = 'https://issuer.example'

let database: TestDatabase
let folder: string
let settings: Record<string, string>

beforeAll(async () => {
  database = await createDatabase()
  folder = await mkdtemp(join(tmpdir(), 'curfew-test-cli-'))
  settings = settingsFor({ databaseUrl: database.url, redisUrl: null, issuers: [{ issuer, audience: 'curfew', instance: true }] })
})
afterAll(async () => {
  await database.drop()
  await rm(folder, { recursive: true, force: true })
})

/** A database without tables, dropped after use. */
const withEmptyDatabase = async (use: (url: string) => Promise<void>): Promise<void> => {
  const server = inject('postgresUrl')
  const name = `curfew_empty_${process.pid}`
  const admin = new pg.Client({ connectionString: `${server}/postgres` })
  await admin.connect()
  await admin.query(`CREATE DATABASE ${name}`)
  try {
    await use(`${server}/${name}`)
  } finally {
    await admin.query(`DROP DATABASE ${name} WITH (FORCE)`)
    await admin.end()
  }
}

describe('curfew', () => {
  it('tells its version, and that a command is unknown', async () => {
    expect(await curfew(['--version'])).toEqual({ code: 0, out: expect.stringMatching(/^\d+\.\d+\.\d+\n$/), err: '' })
    expect(await curfew(['unrevoke'])).toMatchObject({ code: 2, err: expect.stringContaining('unknown command') })
  })
})

describe('curfew --help', () => {
  it.each([['revoke'], ['cutoff', 'set']])('says that a reason is required: %s %s', async (...command) => {
    expect((await curfew([...command, '--help'])).out).toMatch(/--reason <text> +why, for those who ask later\s+\(required\)/)
  })
})

describe('curfew migrate', () => {
  it('brings an empty database up to date, and finds nothing to do the second time', async () => {
    await withEmptyDatabase(async (url) => {
      expect(await curfew(['migrate'], { DATABASE_URL: url })).toMatchObject({ code: 0, out: expect.stringContaining('applied ') })
      expect(await curfew(['migrate'], { DATABASE_URL: url })).toEqual({ code: 0, out: 'Up to date.\n', err: '' })
    })
  })

  it('says what is missing, and that Postgres cannot be reached', async () => {
    expect(await curfew(['migrate'])).toMatchObject({ code: 2, err: expect.stringMatching(/^DATABASE_URL is missing/) })
    const unreachable = await curfew(['migrate'], { DATABASE_URL: 'postgresql://u:hidden-word@127.0.0.1:1/x' })
    expect(unreachable).toEqual({ code: 1, out: '', err: 'Postgres cannot be reached; is DATABASE_URL right?\n' })
  })
})

describe('curfew serve', () => {
  it('refuses wrong settings with one line for each, and never shows a value', async () => {
    const refused = await curfew(['serve'], { ...settings, QUEUE_SECRET: 'hidden-word', PORT: 'hidden-word', ISSUERS: '' })
    expect(refused.code).toBe(2)
    expect(refused.err.trim().split('\n').map((line) => line.split(' ')[0])).toEqual(['PORT', 'ISSUERS', 'QUEUE_SECRET'])
    expect(refused.err).not.toContain('hidden-word')
  })

  it.each([
    ['ALLOW_PRIVATE_RECEIVERS', ['10.0.0.1', '10.0.0.0/33', 'localnet', '10.0.0.0/8/8', 'fe80::1%eth0/64']],
    ['TRUST_PROXY', ['proxy.example', '10.0.0.0/40']],
    ['CACHE_KEY_TEMPLATES', ['sess:', 'sess:{sid},all']],
    ['SHUTDOWN_TIMEOUT', ['99999999999']],
    ['MAX_SESSION_LIFETIME', ['9999999999999']],
    ['ISSUERS', ['[{"issuer": "https://a.example/x y", "audience": "c"}]']],
  ])('refuses what would fail later, or quietly do nothing: %s', async (name, texts) => {
    for (const text of texts) {
      const refused = await curfew(['config', 'print'], { ...settings, [name]: text })
      expect(refused, text).toMatchObject({ code: 2, err: expect.stringMatching(new RegExp(`^${name}( \\(.*\\))? is wrong: [^\n]+\n$`)) })
    }
  })

  it('refuses a role that does not exist', async () => {
    expect(await curfew(['serve', '--roles', 'api,cook'], settings)).toMatchObject({ code: 2, err: expect.stringContaining('ROLES') })
  })

  it('refuses an unmigrated database and says what to run', async () => {
    await withEmptyDatabase(async (url) => {
      const refused = await curfew(['serve'], { ...settings, DATABASE_URL: url })
      expect(refused).toEqual({ code: 1, out: '', err: 'The database has no tables yet. Run: npx curfew migrate\n' })
    })
  })

  it.skipIf(redisMissing)('refuses a Redis that may evict', async () => {
    const redis = await startRedis(['--maxmemory-policy', 'allkeys-lru'])
    const refused = await curfew(['serve'], { ...settings, REDIS_URL: redis.url })
    await redis.stop()
    expect(refused).toMatchObject({ code: 1, out: '', err: expect.stringContaining('noeviction') })
    expect(refused.err.trim().split('\n')).toHaveLength(1)
  })
})

describe('curfew serve while Redis is away', () => {
  it('starts, and says in readyz that the queue is away', async () => {
    const running = await startProcess({ ...settings, REDIS_URL: `redis://127.0.0.1:${await freePort()}` })
    await expect.poll(async () => (await fetch(`${running.opsUrl}/readyz`)).json(), { timeout: 10_000 })
      .toEqual({ ready: true, postgres: 'ok', queue: 'away', draining: false })
    expect(running.lines.some((line) => line.includes('"service.redis_away"'))).toBe(true)
    expect(await running.stop()).toBe(0)
  })
})

describe('curfew keys', () => {
  it('imports a JWK and a PEM, rotates, and lists without a private word', async () => {
    const { privateKey } = await generateKeyPair('RS256', { extractable: true })
    const jwk = { ...(await exportJWK(privateKey)), kid: 'mine', alg: 'RS256' }
    await writeFile(join(folder, 'key.jwk'), JSON.stringify(jwk))
    await writeFile(join(folder, 'key.pem'), await exportPKCS8((await generateKeyPair('ES256', { extractable: true })).privateKey))

    expect((await curfew(['keys', 'list'], settings)).out).toContain('No keys yet')
    const imported = await curfew(['keys', 'import', '--issuer', issuer, '--file', join(folder, 'key.jwk')], settings)
    expect(imported).toEqual({ code: 0, out: `mine (RS256) signs for ${issuer} now.\n`, err: '' })
    expect((await curfew(['keys', 'import', '--issuer', issuer, '--file', join(folder, 'key.pem')], settings)).out).toContain('(ES256)')
    expect((await curfew(['keys', 'rotate', '--issuer', issuer], settings)).out).toContain('published as the next key')
    expect(await curfew(['keys', 'rotate', '--issuer', issuer], settings)).toMatchObject({ code: 1, err: expect.stringMatching(/^The next key \S+ may sign from \d{4}-/) })
    expect((await curfew(['keys', 'rotate', '--issuer', issuer, '--force'], settings)).out).toContain('mine is retired')

    const { out } = await curfew(['keys', 'list', '--issuer', issuer], settings)
    expect(out.trim().split('\n').map((line) => line.split('  ').slice(1, 3).join(' ')).sort()).toEqual(['ES256 current', 'RS256 current', 'RS256 retired'])
    expect(out).not.toContain(jwk.d)
  })

  it('says in one sentence what is wrong with a key, a file or an issuer', async () => {
    await writeFile(join(folder, 'bad.pem'), 'no key')
    const bad = await curfew(['keys', 'import', '--issuer', issuer, '--file', join(folder, 'bad.pem')], settings)
    expect(bad).toMatchObject({ code: 2, err: expect.stringMatching(/^Invalid signing key/) })
    const none = join(folder, 'none')
    expect(await curfew(['keys', 'import', '--issuer', issuer, '--file', none], settings)).toEqual({ code: 2, out: '', err: `${none} cannot be read: there is no such file\n` })
    expect(await curfew(['keys', 'rotate', '--issuer', issuer, '--alg', 'foo'], settings)).toMatchObject({ code: 2, err: expect.stringContaining('Allowed choices are RS256, ES256') })
    expect(await curfew(['keys', 'import', '--issuer', 'example', '--file', 'x'], settings)).toMatchObject({ code: 2 })
  })
})

describe('curfew cutoff', () => {
  it('sets a rule that is in force at once, says what it kills, and lists it', async () => {
    await seedSessions(database.sql, [{ id: 'c1', issuer, userId: 'u1' }, { id: 'c2', issuer, userId: 'u2' }, { id: 'c3', issuer, userId: 'u3' }])
    expect((await curfew(['cutoff', 'list'], settings)).out).toBe('No rules are in force.\n')
    const set = await curfew(['cutoff', 'set', '--issuer', issuer, '--org', 'o1', '--exclude-user', 'u2', '--exclude-user', 'u9', '--exclude-session', 'c3', '--reason', 'INC-1'], settings)
    expect(set).toMatchObject({ code: 0, err: '' })
    expect(set.out).toMatch(/org=o1 .*excludes user=u2 {2}excludes user=u9 {2}excludes session=c3 .*reason=INC-1\nIn force\. It kills 1 registered sessions/)
    await curfew(['cutoff', 'set', '--issuer', issuer, '--user', 'u1', '--born-before', '2020-01-01T00:00:00+01:00', '--reason', 'INC-2'], settings)
    const lines = (await curfew(['cutoff', 'list', '--issuer', issuer], settings)).out.trim().split('\n')
    expect(lines).toEqual([expect.stringMatching(/user=u1 {2}cutoff=2019-12-31T23:00:00\.000Z.*INC-2/), set.out.split('\n')[0]])
    expect((await curfew(['cutoff', 'list', '--issuer', 'https://other.example'], settings)).out).toBe('No rules are in force.\n')
  })

  it('says what is wrong with a rule, and sets none', async () => {
    const before = (await curfew(['cutoff', 'list'], settings)).out
    const wrong = [['--issuer', issuer], ['--reason', 'x'], ['--issuer', 'example', '--reason', 'x'], ['--issuer', issuer, '--reason', 'x', '--born-before', 'yesterday']]
    for (const parameters of wrong) expect(await curfew(['cutoff', 'set', ...parameters], settings)).toMatchObject({ code: 2, out: '' })
    const empty = { user: ['--user', '', '--reason', 'x'], organization: ['--org', '', '--reason', 'x'], reason: ['--reason', ''] }
    for (const [field, parameters] of Object.entries(empty)) {
      expect(await curfew(['cutoff', 'set', '--issuer', issuer, ...parameters], settings)).toMatchObject({ code: 2, out: '', err: expect.stringContaining(`${field} must have`) })
    }
    expect((await curfew(['cutoff', 'list'], settings)).out).toBe(before)
  })
})

describe('curfew verify-report', () => {
  it('says in one sentence what is wrong with a file', async () => {
    const none = join(folder, 'none')
    expect(await curfew(['verify-report', none])).toEqual({ code: 2, out: '', err: `${none} cannot be read: there is no such file\n` })
    expect(await curfew(['verify-report', folder])).toEqual({ code: 2, out: '', err: `${folder} cannot be read: it is a folder\n` })
    await writeFile(join(folder, 'text'), 'no report')
    expect(await curfew(['verify-report', join(folder, 'text')])).toEqual({ code: 1, out: '', err: 'Not verified: It is no report of a revocation.\n' })
    await writeFile(join(folder, 'report'), '{"report":{},"signature":"x"}')
    expect(await curfew(['verify-report', join(folder, 'report'), '--jwks', none])).toMatchObject({ code: 2, err: `${none} cannot be read: there is no such file\n` })
  })
})

describe('curfew config print', () => {
  it('prints every setting and no secret', async () => {
    const { code, out } = await curfew(['config', 'print'], { ...settings, LOG_LEVEL: 'debug' })
    expect(code).toBe(0)
    expect(out).toContain('LOG_LEVEL=debug\n')
    expect(out).toContain('HOST=127.0.0.1  # default\n')
    expect(out).toContain('QUEUE_SECRET=(set, not shown)\n')
    for (const name of ['DATABASE_URL', 'QUEUE_SECRET', 'KEY_ENCRYPTION_KEY', 'ISSUERS']) expect(out).not.toContain(settings[name])
  })

  it('says which field of an issuer is missing, and which is wrong', async () => {
    const { code, err } = await curfew(['config', 'print'], { ...settings, ISSUERS: '[{"issuer":"https://a.example"},{"issuer":"x","audience":7}]' })
    expect([code, err.trim().split('\n')]).toEqual([2, [
      'ISSUERS (0.audience) is missing', 'ISSUERS (1.issuer) is wrong: Invalid URL', 'ISSUERS (1.audience) is wrong: must be a text or a list of texts, none of them empty',
    ]])
  })

  it('fails on a wrong setting', async () => {
    expect(await curfew(['config', 'print'], { ...settings, PORT: '-1' })).toMatchObject({ code: 2, err: expect.stringMatching(/^PORT is wrong/) })
  })
})
