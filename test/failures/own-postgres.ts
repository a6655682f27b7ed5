/** A Postgres of one test file's own, to be stopped, killed and started again. */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { startLocalPostgres } from '../../src/dev/local-postgres.ts'
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
  const port = await freePort()
  const start = () => startLocalPostgres({ folder, password: 'postgres', port, settings: ['fsync=off'] })
  let server = await start()
  const { url } = server
  await migrate(url)
  await migrateQueue(url)
  const sql = new pg.Pool({ connectionString: url, max: 10 })
  sql.on('error', () => {})
  return {
    database: { url, sql, drop: async () => {} },
    crash: async () => {
      const [pid = ''] = (await readFile(server.pidFile, 'utf8')).split('\n')
      process.kill(Number(pid), 'SIGQUIT')
      await server.gone
    },
    restart: async () => {
      server = await start()
    },
    stop: async () => {
      await sql.end()
      await server.stop()
      for (const used of [folder, server.folder]) await rm(used, { recursive: true, force: true })
    },
  }
}
