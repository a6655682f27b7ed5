/** What the README tells a responder to type, typed. */
import { execFile, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startCluster } from '../failures/cluster.ts'
import type { Cluster } from '../failures/cluster.ts'
import { startReceiver } from '../harness/receiver.ts'
import type { TestReceiver } from '../harness/receiver.ts'

const project = fileURLToPath(new URL('../..', import.meta.url))
const LONG_MS = 120_000
/** util-linux's `script` runs a command on a terminal of its own. */
const hasScript = /util-linux/.test(spawnSync('script', ['--version'], { encoding: 'utf8' }).stdout ?? '')

describe('the README’s commands for many sessions', () => {
  let cluster: Cluster
  let shop: TestReceiver
  let folder: string
  let environment: Record<string, string | undefined>
  beforeAll(async () => {
    cluster = await startCluster({ redis: null })
    ;[shop, folder] = await Promise.all([startReceiver(), mkdtemp(join(tmpdir(), 'curfew-test-readme-'))])
    await cluster.start('worker')
    const api = await cluster.start('api')
    await cluster.putReceiver(api, 'shop', shop.url)
    // `npx` finds the project's own command without asking the registry.
    await writeFile(join(folder, 'npx'), `#!/bin/sh\nshift\nexec '${process.execPath}' '${join(project, 'dist/cli.js')}' "$@"\n`)
    await chmod(join(folder, 'npx'), 0o755)
    const token = await cluster.issuer.token({ sub: 'responder', permissions: ['revocation.read', 'revocation.write'] })
    environment = { PATH: `${folder}${delimiter}${process.env['PATH'] ?? ''}`, CURFEW_URL: api.apiUrl, CURFEW_TOKEN: token }
    for (const resourceOwner of ['o1', 'o2']) {
      await cluster.live(3, { resourceOwner, clients: [{ clientId: 'shop' }] })
      await cluster.live(1, { resourceOwner, userId: 'break-glass' })
    }
  })
  afterAll(async () => {
    await cluster.stop()
    await Promise.all([shop.close(), rm(folder, { recursive: true })])
  })

  const run = async (name: string): Promise<string> => {
    const readme = readFileSync(join(project, 'README.md'), 'utf8')
    const [, script] = new RegExp(`<!-- example: ${name} -->\n\`\`\`sh\n([\\s\\S]*?)\`\`\``).exec(readme) ?? []
    expect(script, name).toBeDefined()
    const { stdout } = await promisify(execFile)('bash', ['-euo', 'pipefail', '-c', script ?? ''], { cwd: folder, env: environment })
    return stdout
  }
  const live = async (organization: string): Promise<string[]> =>
    (await cluster.database.sql.query<{ user_id: string }>(`SELECT user_id FROM sessions WHERE resource_owner = $1 AND state = 'active'`, [organization])).rows.map((row) => row.user_id)

  it('end an organization’s sessions at a command line, and verify the report', async () => {
    const said = await run('revoke.sh')
    expect(said).toContain('3 sessions match.')
    expect(said).toContain('done, 3 sessions ended')
    expect(said).toContain("3 of 3 receivers' messages acknowledged")
    expect(said).toMatch(/Verified: report\.ndjson[\s\S]*done, final: 3 sessions ended, 0 remaining/)
    expect(await live('o1')).toEqual(['break-glass'])
    expect(await live('o2')).toHaveLength(4)
  }, LONG_MS)

  it('and with curl, until everybody is told', async () => {
    const said = await run('revoke-curl.sh')
    expect(said).toContain('"state":"done"')
    expect(said).toMatch(/event: done\n/)
    expect(said).toContain('"notifications":"paused"')
    expect(said).toContain('{"redelivered":0,"more":false}')
    expect(await live('o2')).toEqual(['break-glass'])
    expect(shop.requests).toHaveLength(6)
    expect(await readFile(join(folder, 'report.csv'), 'utf8')).toMatch(/^record,name,value,[\s\S]*fact,sessions\.terminated,3\r\n[\s\S]*\r\nsignature,,eyJ/)
  }, LONG_MS)

  it.skipIf(!hasScript)('ask a person at a terminal for the number, and draw how far it is', async () => {
    await cluster.live(7, { resourceOwner: 'o3' })
    const child = spawn('script', ['-qfec', 'npx curfew revoke --org o3 --reason INC-1 --watch', '/dev/null'], {
      cwd: folder, env: { ...environment, TERM: 'xterm' }, stdio: ['pipe', 'pipe', 'inherit'],
    })
    let screen = ''
    child.stdout.on('data', (chunk: Buffer) => {
      screen += chunk.toString('utf8')
      if (/type 7: (\u001b\[\d+G)?$/.test(screen)) child.stdin.write('7\r')
    })
    const [code] = (await once(child, 'close')) as [number]
    expect(code).toBe(0)
    expect(screen).toContain('\r\u001b[2K[########################] 100 %  7 ended')
    expect(screen).toMatch(/\u001b\[2Kdone, 7 sessions ended, [^\r]*\r\n$/)
    expect(await live('o3')).toEqual([])
  }, LONG_MS)
})
