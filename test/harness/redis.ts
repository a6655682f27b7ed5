import { spawn, spawnSync } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { freePort } from './ports.ts'

const findBinary = (): string | null => {
  const named = process.env['REDIS_SERVER']
  if (named !== undefined && named !== '') return named
  return ['redis-server', 'valkey-server'].find((name) => spawnSync(name, ['--version']).status === 0) ?? null
}

/** The Redis server's binary, or null where this machine has none. */
export const redisBinary = findBinary()

/**
 * True where the Redis suites must be skipped (`describe.skipIf(redisMissing)`). In CI a missing Redis is a
 * failure: `CI=1` makes `startRedis` throw instead.
 */
export const redisMissing = redisBinary === null && (process.env['CI'] ?? '') === ''

export interface TestRedis {
  readonly url: string
  readonly port: number
  /** A client of the test's own. */
  readonly client: Redis
  /** SIGSTOP: connected but silent. */
  freeze(): void
  thaw(): void
  /** kill -9; the port is closed until `restart`. */
  kill(): Promise<void>
  /** Starts again on the same port; `empty` loses all data. */
  restart(options: { empty: boolean }): Promise<void>
  stop(): Promise<void>
}

/** Starts a real Redis of the caller's own (append-only file, noeviction) on a free port. */
export const startRedis = async (extra: readonly string[] = []): Promise<TestRedis> => {
  if (redisBinary === null) throw new Error('No redis-server or valkey-server found; set REDIS_SERVER')
  const folder = await mkdtemp(join(tmpdir(), 'curfew-test-redis-'))
  const port = await freePort()
  const url = `redis://127.0.0.1:${port}`
  let server: ChildProcess
  const start = async () => {
    server = spawn(redisBinary, ['--port', String(port), '--bind', '127.0.0.1', '--dir', folder, '--appendonly', 'yes', '--save', '', '--maxmemory-policy', 'noeviction', ...extra], { stdio: 'ignore' })
    const probe = new Redis(url, { retryStrategy: () => 20, maxRetriesPerRequest: null })
    probe.on('error', () => {})
    await probe.ping()
    probe.disconnect()
  }
  const kill = async () => {
    if (server.exitCode !== null || server.signalCode !== null) return
    const gone = once(server, 'exit')
    server.kill('SIGKILL')
    await gone
  }
  await start()
  const client = new Redis(url, { maxRetriesPerRequest: null, retryStrategy: () => 50 })
  client.on('error', () => {})
  return {
    url,
    port,
    client,
    freeze: () => void server.kill('SIGSTOP'),
    thaw: () => void server.kill('SIGCONT'),
    kill,
    restart: async ({ empty }) => {
      await kill()
      if (empty) {
        await rm(folder, { recursive: true, force: true })
        await (await import('node:fs/promises')).mkdir(folder)
      }
      await start()
    },
    stop: async () => {
      client.disconnect()
      await kill()
      await rm(folder, { recursive: true, force: true })
    },
  }
}
