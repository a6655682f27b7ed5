/**
 * Starts one real Postgres for the whole run, on a free port and in a folder of its own, and prepares a migrated
 * template; every test file makes its own database from it (`createDatabase`).
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import type { TestProject } from 'vitest/node'
import { startLocalPostgres } from '../../src/dev/local-postgres.ts'
import { migrateQueue } from '../../src/queue/backend.ts'
import { migrate } from '../../src/store/migrations.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** A superuser's URL of the run's Postgres, without a database name. */
    postgresUrl: string
  }
}

export default async function setup({ provide }: TestProject): Promise<() => Promise<void>> {
  const folder = await mkdtemp(join(tmpdir(), 'curfew-test-postgres-'))
  const server = await startLocalPostgres({
    folder,
    password: 'postgres',
    settings: ['fsync=off', 'max_connections=500'],
  })
  const postgresUrl = server.url.replace(/\/curfew$/, '')
  const admin = new pg.Client({ connectionString: server.url })
  await admin.connect()
  await admin.query('CREATE DATABASE template_curfew')
  await admin.end()
  await migrate(`${postgresUrl}/template_curfew`)
  await migrateQueue(`${postgresUrl}/template_curfew`)
  provide('postgresUrl', postgresUrl)
  return async () => {
    await server.stop()
    for (const used of [folder, server.folder]) await rm(used, { recursive: true, force: true })
  }
}
