/**
 * `npm start` as its reader meets it: the built entry, its printed lines, the pasted command, Ctrl-C, and again.
 */
import { spawn, spawnSync } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, readFile, readdir, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { freePortsInARow } from '../harness/ports.ts'

const entry = fileURLToPath(new URL('../../dist/dev/start.js', import.meta.url))

interface Start {
  readonly child: ChildProcess
  readonly port: number
  output(): string
  /** Waits until the last line of the banner is printed. */
  ready(): Promise<void>
  /** Sends the signal and resolves with the exit code. */
  signal(name: NodeJS.Signals): Promise<number | null>
}

let folder: string
const started: Start[] = []

const start = async (environment: Record<string, string> = {}): Promise<Start> => {
  const port = await freePortsInARow(4)
  const env = { PATH: process.env['PATH'] ?? '', HOME: folder, PORT: String(port), ...environment }
  const child = spawn(process.execPath, [entry], { cwd: folder, env, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk.toString('utf8')))
  const run: Start = {
    child,
    port,
    output: () => output,
    ready: async () => {
      const up = vi.waitFor(() => expect(output).toContain('Ctrl-C stops everything.'), { timeout: 60_000, interval: 50 })
      const gone = once(child, 'exit').then(() => Promise.reject(new Error(`It ended: ${output}`)))
      await Promise.race([up, gone])
    },
    signal: async (name) => {
      if (child.exitCode !== null || child.signalCode !== null) return child.exitCode
      const gone = once(child, 'exit') as Promise<[number | null]>
      child.kill(name)
      const [code] = await gone
      return code
    },
  }
  started.push(run)
  return run
}

const curlLine = (output: string): string => {
  const line = output.split('\n').find((text) => text.startsWith('curl '))
  if (line === undefined) throw new Error(`No curl line in: ${output}`)
  return line
}

/** Runs the line in a shell as it stands; where there is no curl, sends what it says. */
const paste = async (line: string): Promise<string> => {
  if (spawnSync('curl', ['--version']).status === 0) return spawnSync('sh', ['-c', line], { encoding: 'utf8' }).stdout
  const [, url = '', name = '', value = ''] = /DELETE (\S+) -H '([^:]+): ([^']+)'/.exec(line) ?? []
  const answer = await fetch(url, { method: 'DELETE', headers: { [name]: value } })
  return `HTTP/1.1 ${answer.status}\r\n\r\n${await answer.text()}`
}

/** What the demo shop's page would show at this moment: the first event of its stream. */
const shopLogins = async (port: number): Promise<{ name: string; endedAt: string | null }[]> => {
  const answer = await fetch(`http://127.0.0.1:${port + 2}/events`)
  const reader = answer.body?.getReader()
  const first = await reader?.read()
  await reader?.cancel()
  return JSON.parse(new TextDecoder().decode(first?.value).replace(/^data: /, '')) as { name: string; endedAt: string | null }[]
}

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'curfew-test-start-'))
  // As root, Postgres runs as another account, which must be able to enter; a clone is entered by all.
  await chmod(folder, 0o755)
})

afterEach(async () => {
  for (const run of started.splice(0)) await run.signal('SIGTERM')
  await rm(folder, { recursive: true, force: true })
})

describe('npm start', { timeout: 180_000 }, () => {
  it('prints a line that ends a session when pasted, shows the user out at the shop, stops, and starts again', async () => {
    const first = await start()
    await first.ready()
    expect(await shopLogins(first.port)).toEqual([expect.objectContaining({ name: 'Alice', endedAt: null })])
    expect((await fetch(`http://127.0.0.1:${first.port}/docs`)).status).toBe(200)
    expect((await fetch(`http://127.0.0.1:${first.port + 3}/metrics`)).status).toBe(200)

    const answer = await paste(curlLine(first.output()))
    expect(answer).toMatch(/^HTTP\/1\.1 200/)
    expect(JSON.parse(answer.split('\r\n\r\n')[1] ?? '')).toEqual({
      details: { sequence: '2', changeDate: expect.stringMatching(/^\d{4}-.*\.\d{3}Z$/), resourceOwner: expect.any(String) },
    })
    await vi.waitFor(() => expect(first.output()).toContain('Demo shop: Alice is signed out'), { timeout: 10_000 })
    expect(await shopLogins(first.port)).toEqual([{ name: 'Alice', endedAt: expect.any(String), sid: expect.any(String), mine: false }])

    expect(await first.signal('SIGINT')).toBe(0)
    expect(first.output()).toContain('Stopped.')
    await expect(fetch(`http://127.0.0.1:${first.port}/healthz`)).rejects.toThrow()
    expect(await postgresIsGone()).toBe(true)

    const second = await start()
    await second.ready()
    expect(curlLine(second.output())).not.toBe(curlLine(first.output()))
    expect(await paste(curlLine(second.output()))).toMatch(/^HTTP\/1\.1 200/)
    expect(await second.signal('SIGTERM')).toBe(0)
  })

  it('leaves no Postgres behind when it is killed, and starts again from the same folder', async () => {
    const first = await start()
    await first.ready()
    await first.signal('SIGKILL')
    await vi.waitFor(async () => expect(await postgresIsGone()).toBe(true), { timeout: 15_000 })
    const second = await start()
    await second.ready()
    expect(await second.signal('SIGINT')).toBe(0)
  })

  it('refuses to run twice from one folder', async () => {
    const first = await start()
    await first.ready()
    const second = await start()
    expect(await once(second.child, 'exit')).toEqual([1, null])
    expect(second.output()).toContain('Curfew already runs from this folder')
    expect(await paste(curlLine(first.output()))).toMatch(/^HTTP\/1\.1 200/)
  })

  it('stops cleanly when it is told to while it is still starting', async () => {
    const run = await start()
    await vi.waitFor(async () => expect(await readdir(folder)).toContain('.curfew'), { timeout: 30_000, interval: 5 })
    expect(await run.signal('SIGINT')).toBe(0)
    await vi.waitFor(async () => expect(await postgresIsGone()).toBe(true), { timeout: 15_000 })
  })

  it('stops when npm is told to stop and its shell is gone', async () => {
    const port = await freePortsInARow(4)
    const shell = spawn('sh', ['-c', `"${process.execPath}" "${entry}"; true`], {
      cwd: folder,
      env: { PATH: process.env['PATH'], PORT: String(port), npm_lifecycle_event: 'start' },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let output = ''
    shell.stdout.on('data', (chunk: Buffer) => (output += chunk.toString('utf8')))
    await vi.waitFor(() => expect(output).toContain('Ctrl-C stops everything.'), { timeout: 60_000, interval: 50 })
    shell.kill('SIGTERM')
    await vi.waitFor(() => expect(output).toContain('Stopped.'), { timeout: 30_000 })
    expect(await postgresIsGone()).toBe(true)
  })

  it('keeps its secrets where only their owner can read them', async () => {
    const run = await start()
    await run.ready()
    const file = join(folder, '.curfew', 'secrets.json')
    expect((await stat(file)).mode & 0o777).toBe(0o600)
    const { queueSecret } = JSON.parse(await readFile(file, 'utf8')) as { queueSecret: string }
    expect(Buffer.from(queueSecret, 'base64')).toHaveLength(32)
  })

  it.each([
    ['NODE_ENV=production', { NODE_ENV: 'production' }, 'does not run with NODE_ENV=production'],
    ['an address that is not loopback', { HOST: '0.0.0.0' }, 'listens on loopback only'],
    ['a port that is none', { PORT: 'eighty' }, 'PORT must be a number'],
  ])('refuses %s in one sentence', async (_name, environment, sentence) => {
    const run = await start(environment)
    expect(await once(run.child, 'exit')).toEqual([1, null])
    expect(run.output()).toContain(sentence)
    expect(run.output().trim().split('\n')).toHaveLength(1)
    expect(await readdir(folder)).toEqual([])
  })
})

/** Postgres removes its pid file as the last thing that it does. */
const postgresIsGone = async (): Promise<boolean> => {
  const home = join(folder, '.curfew')
  const entries = await readdir(home, { recursive: true }).catch(() => [])
  return !entries.some((path) => path.endsWith('postmaster.pid'))
}
