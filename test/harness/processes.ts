import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

/** A real process of the built service. */
export interface ServiceProcess {
  readonly apiUrl: string
  readonly opsUrl: string
  readonly pid: number
  /** Everything it has printed, line by line. */
  readonly lines: readonly string[]
  /** kill -9. */
  kill(): Promise<void>
  /** SIGTERM, and the exit code. */
  stop(): Promise<number | null>
  signal(name: NodeJS.Signals): void
}

const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url))

/** Settings that every process of a test shares; none is taken from the environment of the test run. Tests ask little at once, and the queue is to be in the way. */
export const settingsFor = (settings: { databaseUrl: string; redisUrl: string | null; issuers: unknown[] }): Record<string, string> => ({
  DATABASE_URL: settings.databaseUrl,
  ...(settings.redisUrl === null ? {} : { REDIS_URL: settings.redisUrl }),
  ISSUERS: JSON.stringify(settings.issuers),
  QUEUE_SECRET: Buffer.alloc(32, 7).toString('base64'),
  KEY_ENCRYPTION_KEY: Buffer.alloc(32, 9).toString('base64'),
  ALLOW_PRIVATE_RECEIVERS: '127.0.0.0/8',
  QUEUE_FROM: '1',
  PORT: '0',
  OPS_PORT: '0',
})

const running = new Set<ChildProcess>()
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL')
})

/** Starts `curfew serve` and waits until it says where it listens. Rejects with what it printed if it ends before. */
export const startProcess = async (settings: Record<string, string>): Promise<ServiceProcess> => {
  const child = spawn(process.execPath, [cli, 'serve'], {
    env: { PATH: process.env['PATH'], ...settings },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  running.add(child)
  // Not at its exit: what it printed last may not have been read by then.
  const exited = once(child, 'close').then(() => running.delete(child))
  const lines: string[] = []
  const started = new Promise<{ apiUrl: string | null; opsUrl: string | null }>((resolve, reject) => {
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on('line', (line) => {
        lines.push(line)
        if (line.includes('"service.started"')) resolve(JSON.parse(line) as { apiUrl: string; opsUrl: string })
      })
    }
    void exited.then(() => reject(new Error(`curfew serve ended: ${lines.join('\n')}`)))
  })
  const { apiUrl, opsUrl } = await started
  return {
    apiUrl: apiUrl ?? '',
    opsUrl: opsUrl ?? '',
    pid: child.pid ?? 0,
    lines,
    kill: async () => {
      child.kill('SIGKILL')
      await exited
    },
    stop: async () => {
      child.kill('SIGTERM')
      await exited
      return child.exitCode
    },
    signal: (name) => void child.kill(name),
  }
}
