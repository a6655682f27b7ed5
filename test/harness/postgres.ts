import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { inject } from 'vitest'

export interface TestDatabase {
  readonly url: string
  /** A plain client of the test's own, for looking and for interfering. */
  readonly sql: pg.Pool
  drop(): Promise<void>
}

/** A migrated, empty database of the caller's own in the run's Postgres. */
export const createDatabase = async (): Promise<TestDatabase> => {
  const server = inject('postgresUrl')
  const name = `curfew_${randomBytes(6).toString('hex')}`
  const admin = new pg.Client({ connectionString: `${server}/postgres` })
  await admin.connect()
  // Serialised: a template can be copied by one session at a time.
  await admin.query('SELECT pg_advisory_lock(1)')
  await admin.query(`CREATE DATABASE ${name} TEMPLATE template_curfew`)
  await admin.end()
  const url = `${server}/${name}`
  const sql = new pg.Pool({ connectionString: url, max: 10 })
  sql.on('error', () => {})
  return {
    url,
    sql,
    drop: async () => {
      await sql.end()
      const dropper = new pg.Client({ connectionString: `${server}/postgres` })
      await dropper.connect()
      await dropper.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`)
      await dropper.end()
    },
  }
}
