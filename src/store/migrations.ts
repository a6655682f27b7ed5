/**
 * Applies `prisma/migrations` and keeps Prisma's own ledger (`_prisma_migrations`: name, SHA-256 of the file),
 * so that `prisma migrate deploy` and `curfew migrate` can be used on the same database in any order.
 * One process migrates at a time (Prisma's own advisory lock number); each migration is one transaction.
 */
import { createHash, randomUUID } from 'node:crypto'
import { readFile, readdir } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import type pg from 'pg'
import { withClient } from './postgres.ts'

/** The number that Prisma's schema engine locks while it migrates. */
const PRISMA_ADVISORY_LOCK = 72_707_369

const LEDGER = `CREATE TABLE IF NOT EXISTS _prisma_migrations (
  id varchar(36) PRIMARY KEY NOT NULL, checksum varchar(64) NOT NULL, finished_at timestamptz,
  migration_name varchar(255) NOT NULL, logs text, rolled_back_at timestamptz,
  started_at timestamptz NOT NULL DEFAULT now(), applied_steps_count integer NOT NULL DEFAULT 0)`

interface Migration {
  readonly name: string
  readonly sql: string
  readonly checksum: string
}

/** The database is not as the migrations leave it, and why. */
export class MigrationError extends Error {
  override readonly name = 'MigrationError'
}

const migrationsFolder = fileURLToPath(new URL('../../prisma/migrations', import.meta.url))

const readMigrations = async (): Promise<Migration[]> => {
  const entries = await readdir(migrationsFolder, { withFileTypes: true })
  const names = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name).sort()
  return Promise.all(
    names.map(async (name) => {
      const sql = await readFile(`${migrationsFolder}/${name}/migration.sql`, 'utf8')
      return { name, sql, checksum: createHash('sha256').update(sql).digest('hex') }
    }),
  )
}

interface Applied {
  migration_name: string
  checksum: string
  finished_at: Date | null
}

const readApplied = async (client: pg.Client): Promise<Map<string, Applied>> => {
  const { rows } = await client.query<Applied>(
    'SELECT migration_name, checksum, finished_at FROM _prisma_migrations WHERE rolled_back_at IS NULL',
  )
  return new Map(rows.map((row) => [row.migration_name, row]))
}

const pendingOf = (all: readonly Migration[], applied: ReadonlyMap<string, Applied>): Migration[] => {
  const pending: Migration[] = []
  for (const migration of all) {
    const row = applied.get(migration.name)
    if (row === undefined) pending.push(migration)
    else if (row.finished_at === null) throw new MigrationError(`Migration ${migration.name} failed half way; settle it with "prisma migrate resolve" and run migrate again.`)
    else if (row.checksum !== migration.checksum) throw new MigrationError(`Migration ${migration.name} was applied from another text than this version carries.`)
  }
  return pending
}

/**
 * Applies what is missing and returns the names applied; none when the database is up to date. May be repeated,
 * and run by several processes at once: one works, the others wait and find nothing to do.
 *
 * @throws MigrationError where an applied migration failed half way or had another text.
 */
export const migrate = (url: string): Promise<string[]> =>
  withClient(url, async (client) => {
    await client.query('SELECT pg_advisory_lock($1)', [PRISMA_ADVISORY_LOCK])
    await client.query(LEDGER)
    const pending = pendingOf(await readMigrations(), await readApplied(client))
    for (const { name, sql, checksum } of pending) {
      await client.query('BEGIN')
      await client.query(sql)
      await client.query(
        `INSERT INTO _prisma_migrations (id, checksum, finished_at, migration_name, applied_steps_count) VALUES ($1, $2, clock_timestamp(), $3, 1)`,
        [randomUUID(), checksum, name],
      )
      await client.query('COMMIT')
    }
    return pending.map(({ name }) => name)
  })

/**
 * Checks that the database is exactly as this version's migrations leave it.
 *
 * @throws MigrationError with a sentence that says what to run.
 */
export const assertMigrated = (url: string): Promise<void> =>
  withClient(url, async (client) => {
    const { rows } = await client.query<{ ledger: string | null }>(`SELECT to_regclass('_prisma_migrations')::text AS ledger`)
    if (rows[0]?.ledger == null) throw new MigrationError('The database has no tables yet. Run: npx curfew migrate')
    const pending = pendingOf(await readMigrations(), await readApplied(client))
    if (pending.length > 0) throw new MigrationError(`The database lacks ${pending.map(({ name }) => name).join(', ')}. Run: npx curfew migrate`)
  })
