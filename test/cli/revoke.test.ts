import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createRemote, readRemote } from '../../src/cli/remote.ts'
import { revoke } from '../../src/cli/revoke.ts'
import type { RevokeOptions } from '../../src/cli/revoke.ts'
import { startApi } from '../api/api.ts'
import type { TestApi } from '../api/api.ts'
import { freePort } from '../harness/ports.ts'
import { seedSessions } from '../harness/seed.ts'
import { curfew } from './run.ts'
import { createScreen } from './screen.ts'

let api: TestApi
let url: string
let token: string
let folder: string
beforeAll(async () => {
  api = await startApi()
  url = `http://127.0.0.1:${await api.listen()}`
  token = await api.issuer.token({ sub: 'responder', permissions: ['revocation.read', 'revocation.write'] })
  folder = await mkdtemp(join(tmpdir(), 'curfew-test-revoke-'))
  await seedSessions(api.database.sql, [1, 2, 3, 4].map((n) => ({ id: `s${n}`, issuer: api.issuer.url, userId: `u${n}`, clients: [{ clientId: 'shop' }] })))
  await api.database.sql.query(
    `INSERT INTO receivers (id, type, url, issuer, client_id, enabled, broken_until) VALUES
       ('shop', 'backchannel_logout', 'https://shop.example', $1, 'shop', false, NULL), ('till', 'backchannel_logout', 'https://till.example', $1, 'shop', true, now() + interval '1 hour')`,
    [api.issuer.url])
})
afterAll(async () => {
  await api.close()
  await rm(folder, { recursive: true })
})
beforeEach(() => api.database.sql.query('DELETE FROM revocations'))

const none = { org: [], user: [], session: [], client: [], fingerprint: [], ip: [], includeExpired: false, all: false, excludeUser: [], excludeSession: [] }
const options = (change: Partial<RevokeOptions> = {}): RevokeOptions => ({
  ...none, mode: 'revoke', reason: 'INC-1', preview: false, watch: false, yes: false, ...(change.session === undefined ? { org: ['o1'] } : {}), ...change,
})
const remote = () => createRemote({ url, token })
const accepted = async () => (await api.database.sql.query('SELECT * FROM revocations ORDER BY id')).rows

describe('curfew revoke', () => {
  it('shows what would end and who cannot be told, asks for the number, and then asks for just that', async () => {
    const questions: string[] = []
    const screen = createScreen((question) => {
      questions.push(question)
      return '3'
    })
    expect(await revoke(options({ excludeUser: ['u4'], ticket: 'T-1', deliveriesPerSecond: 50 }), { remote: remote(), terminal: screen })).toBe(0)
    expect(questions).toHaveLength(1)
    expect(questions[0]).toMatch(/^3 sessions match\. 3 users will have to sign in again\./)
    expect(questions[0]).toContain('It is in force at once, by 1 cutoff rule, which cannot be taken back.')
    expect(questions[0]).toMatch(/By organization:\n +3 {2}o1\nBy client:\n +3 {2}shop\nReceivers to be told:\n +3 {2}shop\n +3 {2}till\nCannot be told at present: shop \(switched off\), till \(failing, left alone for now\)\.\n/)
    expect(questions[0]).toContain('To end 3 sessions (revoke), type 3: ')
    const [row, ...more] = await accepted()
    expect(more).toEqual([])
    expect(row).toMatchObject({ reason: 'INC-1', ticket: 'T-1', mode: 'revoke', deliveries_per_second: 50, expected: '3', exclude: { userIds: ['u4'], sessionIds: [] } })
    expect(screen.written()).toContain(`revocation    ${row.id}\n`)
    expect(screen.written()).toContain('filter        resourceOwners=o1\nspares        userIds=u4\n')
    expect(screen.written()).toContain(`npx curfew revocations watch ${row.id}`)
  })

  it('warns whoever would refuse their own token by it', async () => {
    const said = async (change: Partial<RevokeOptions>) => {
      const screen = createScreen(null)
      await revoke(options({ preview: true, ...change }), { remote: remote(), terminal: screen })
      return screen.written()
    }
    const warning = 'Your own token would be refused from then on'
    expect(await said({ org: [], all: true })).toContain(warning)
    expect(await said({ org: [], user: ['responder'] })).toContain(warning)
    for (const spared of [{}, { excludeUser: ['responder'] }, { org: [], user: ['u1'] }, { session: ['s1'] }]) expect(await said(spared)).not.toContain('Your own token')
  })

  it.each([['Enter', ''], ['Ctrl-C', '\u0003'], ['Ctrl-D', '\u0004']])('ends nothing where nothing is typed, and speaks of no number: %s', async (_key, typed) => {
    const screen = createScreen(() => typed)
    expect(await revoke(options(), { remote: remote(), terminal: screen })).toBe(1)
    expect(screen.written()).toMatch(/type 4: [^\n]*\r?\nNothing was ended\.\n$/)
    expect(await accepted()).toEqual([])
  })

  it.each(['4', 'yes', '33'])('ends nothing where the number is not typed: %j', async (typed) => {
    const screen = createScreen(() => typed)
    expect(await revoke(options({ session: ['s1', 's2', 's3'] }), { remote: remote(), terminal: screen })).toBe(1)
    expect(screen.written()).toContain('That is not the number. Nothing was ended.')
    expect(await accepted()).toEqual([])
  })

  it('refuses to end anything where nobody can be asked, unless it is told not to ask', async () => {
    const screen = createScreen(null)
    await expect(revoke(options(), { remote: remote(), terminal: screen })).rejects.toThrow('Nobody can be asked here: say --yes')
    expect(await revoke(options({ preview: true }), { remote: remote(), terminal: screen })).toBe(0)
    expect(screen.written()).toContain('4 sessions match.')
    expect(await accepted()).toEqual([])
    expect(await revoke(options({ yes: true }), { remote: remote(), terminal: screen })).toBe(0)
    expect(await accepted()).toHaveLength(1)
  })

  it('hands every filter on as it was given', async () => {
    await writeFile(join(folder, 'evidence'), '# found in the proxy’s log\ns1\n\n  s2\r\ns3\n')
    const given = options({
      org: ['o1', 'o2'], user: ['u1'], session: ['s9'], sessionsFrom: join(folder, 'evidence'), client: ['shop'], fingerprint: ['f1'], ip: ['10.0.0.0/8', '::1'],
      bornBefore: '2026-01-02T00:00:00+01:00', bornAfter: '2025-01-01T00:00:00Z', includeExpired: true, excludeUser: ['u8'], excludeSession: ['s8'], mode: 'logout', yes: true,
    })
    await revoke(given, { remote: remote(), terminal: createScreen(null) })
    expect((await accepted())[0]).toMatchObject({
      mode: 'logout',
      filter: {
        resourceOwners: ['o1', 'o2'], userIds: ['u1'], sessionIds: ['s9', 's1', 's2', 's3'], clientIds: ['shop'], fingerprintIds: ['f1'], ips: ['10.0.0.0/8', '::1'],
        bornBefore: '2026-01-01T23:00:00.000Z', bornAfter: '2025-01-01T00:00:00.000Z', includeExpired: true, all: false,
      },
      exclude: { userIds: ['u8'], sessionIds: ['s8'] },
    })
    await revoke(options({ org: [], all: true, excludeUser: ['responder'], yes: true }), { remote: remote(), terminal: createScreen(null) })
    expect((await accepted())[1]).toMatchObject({ filter: { all: true } })
  })

  it('asks for nothing where no filter is given, or a file names no session', async () => {
    const at = { remote: createRemote({ url: 'http://127.0.0.1:1', token }), terminal: createScreen(null) }
    await expect(revoke(options({ org: [], yes: true }), at)).rejects.toThrow('Say which sessions')
    await expect(revoke(options({ org: [], includeExpired: true, yes: true }), at)).rejects.toThrow('Say which sessions')
    await writeFile(join(folder, 'empty'), '# nothing\n')
    await expect(revoke(options({ sessionsFrom: join(folder, 'empty'), yes: true }), at)).rejects.toThrow('names no session')
  })

  it('says in a sentence why Curfew refuses', async () => {
    // Born beyond the rules that the tests before have set: they round up to the second that is to come.
    const later = Math.floor(Date.now() / 1_000) + 10
    const weak = createRemote({ url, token: await api.issuer.token({ permissions: ['session.delete'], auth_time: later }) })
    await expect(revoke(options({ yes: true }), { remote: weak, terminal: createScreen(null) })).rejects.toThrow('No matching permissions found (AUTH-AWfge).')
    const stale = createRemote({ url, token: 'nonsense' })
    await expect(revoke(options({ yes: true }), { remote: stale, terminal: createScreen(null) })).rejects.toThrow('Errors.Token.Invalid (AUTH-7fs1e). Is CURFEW_TOKEN still good?')
    await expect(revoke(options({ ip: ['localhost'], yes: true }), { remote: remote(), terminal: createScreen(null) })).rejects.toThrow(/must be an address or a CIDR/)
  })

  it('tells an argument that is wrong from what could not be done by its exit code', async () => {
    const settings = { CURFEW_URL: url, CURFEW_TOKEN: token }
    const asked = (...parameters: string[]) => curfew(['revoke', ...parameters, '--reason', 'INC-1', '--preview'], settings)
    const none = join(folder, 'none')
    expect(await asked('--sessions-from', none)).toEqual({ code: 2, out: '', err: `${none} cannot be read: there is no such file\n` })
    expect(await asked('--ip', 'foo')).toEqual({ code: 2, out: '', err: '--ip: must be an address or a CIDR.\n' })
    expect(await asked('--org', 'o1', '--org', '')).toMatchObject({ code: 2, out: '', err: expect.stringMatching(/^--org, number 2: must have 1 to 512 characters/) })
    expect(await asked('--org', 'o1', '--exclude-user', '')).toMatchObject({ code: 2, out: '', err: expect.stringMatching(/^--exclude-user: must have/) })
    expect(await asked('--org', 'o1', '--all')).toEqual({ code: 2, out: '', err: '--all stands alone: leave out every other filter\n' })
    expect(await asked('--org', 'o1')).toMatchObject({ code: 0, err: '' })
    settings.CURFEW_TOKEN = 'nonsense'
    expect(await asked('--org', 'o1')).toMatchObject({ code: 1, out: '' })
  })

  it('names the option by which the notifications alone are steered', async () => {
    expect(await revoke(options({ yes: true }), { remote: remote(), terminal: createScreen(null) })).toBe(0)
    const [row] = await accepted()
    const refused = await curfew(['revocations', 'cancel', row.id], { CURFEW_URL: url, CURFEW_TOKEN: token })
    expect(refused).toMatchObject({ code: 1, out: '', err: expect.stringContaining('its notifications can be: --only notifications (CURFEW-rev09).') })
  })

  it('G9: is one revocation, also where the answer was lost on its way and it had to ask again', async () => {
    const keys: unknown[] = []
    const proxy = createServer((request, response) => {
      const chunks: Buffer[] = []
      request.on('data', (chunk: Buffer) => chunks.push(chunk))
      request.on('end', () => void (async () => {
        const body = Buffer.concat(chunks).toString()
        const handedOn = ['authorization', 'content-type', 'idempotency-key'].flatMap((name) => {
          const value = request.headers[name]
          return typeof value === 'string' ? [[name, value] as [string, string]] : []
        })
        const answer = await fetch(`${url}${request.url ?? ''}`, { method: 'POST', body, headers: handedOn })
        const text = await answer.text()
        const isPreview = (JSON.parse(body) as { validateOnly?: boolean }).validateOnly === true
        if (!isPreview && keys.push(request.headers['idempotency-key']) === 1) response.destroy()
        else response.writeHead(answer.status, { 'content-type': 'application/json' }).end(text)
      })())
    })
    await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve))
    const through = createRemote({ url: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`, token })
    expect(await revoke(options({ yes: true }), { remote: through, terminal: createScreen(null) })).toBe(0)
    await new Promise((resolve) => proxy.close(resolve))
    expect(keys).toHaveLength(2)
    expect(keys[0]).toEqual(keys[1])
    expect(await accepted()).toHaveLength(1)
  })
})

describe('a Curfew elsewhere', () => {
  it('is named by two settings, which are checked and not shown', () => {
    const read = (environment: Record<string, string>) => () => readRemote(environment)
    expect(read({})).toThrow(/CURFEW_URL is missing.*\nCURFEW_TOKEN is missing/)
    expect(read({ CURFEW_URL: 'curfew.example', CURFEW_TOKEN: 'a b' })).toThrow('CURFEW_URL is wrong')
    for (const wrong of ['ftp://x', 'https://user:hidden@x', 'https://x?q', 'https://x#f']) {
      expect(read({ CURFEW_URL: wrong, CURFEW_TOKEN: 't' })).toThrow(/^CURFEW_URL is wrong: [^\n]*$/)
    }
    expect(read({ CURFEW_URL: 'https://x', CURFEW_TOKEN: 'hidden word' })).toThrow(/^CURFEW_TOKEN is wrong: (?!.*hidden)/)
    expect(read({ CURFEW_URL: 'https://x/base/', CURFEW_TOKEN: 't' })()).toEqual({ url: 'https://x/base', token: 't' })
  })

  it('is said to be unreachable, elsewhere, or no Curfew at all', async () => {
    await expect(createRemote({ url: `http://127.0.0.1:${await freePort()}`, token }).call({ path: '/' })).rejects.toThrow('cannot be reached; is CURFEW_URL right?')
    let carried: string | undefined = 'nothing'
    const server = createServer((request, response) => {
      if (request.url === '/redirect') response.writeHead(302, { location: '/elsewhere' }).end()
      else if (request.url === '/elsewhere') carried = request.headers.authorization
      else if (request.url === '/page') response.writeHead(200, { 'content-type': 'text/html' }).end('<html>')
      else response.writeHead(404).end('<html>\u001b[2J')
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const other = createRemote({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, token })
    await expect(other.call({ path: '/redirect' })).rejects.toThrow('answered with a redirect')
    expect(carried).toBe('nothing')
    await expect(other.call({ path: '/page' })).rejects.toThrow('did not answer with JSON')
    await expect(other.call({ path: '/none' })).rejects.toThrow(/answered 404\.$/)
    await new Promise((resolve) => server.close(resolve))
  })
})
