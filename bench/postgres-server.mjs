/**
 * The run's own Postgres: real server, real fsync, `synchronous_commit` on. The one departure from a production
 * set-up: no checkpoint starts by itself within the run, because it would fall on one variant and not on its neighbour.
 */
import { randomBytes } from 'node:crypto'
import { chmodSync } from 'node:fs'
import { join } from 'node:path'
import pg from 'pg'
import { startLocalPostgres } from '../dist/dev/local-postgres.js'

export const postgresSettings = {
  fsync: 'on',
  synchronous_commit: 'on',
  shared_buffers: '512MB',
  max_wal_size: '16GB',
  checkpoint_timeout: '1h',
  max_connections: '200',
  shared_preload_libraries: 'pg_stat_statements',
}

/** @typedef {Awaited<ReturnType<typeof startPostgres>>} Postgres */

/** @param {string} folder  Empty; removed by whoever made it. */
export const startPostgres = async (folder) => {
  // As root the server runs as another user, who must be able to enter the folder.
  chmodSync(folder, 0o755)
  const server = await startLocalPostgres({
    folder,
    password: randomBytes(16).toString('hex'),
    settings: Object.entries(postgresSettings).map(([name, value]) => `${name}=${value}`),
  })
  const { url } = server
  const sql = new pg.Pool({ connectionString: url, max: 4, application_name: 'bench' })
  sql.on('error', () => {})
  await sql.query('CREATE EXTENSION pg_stat_statements')
  const { rows: [row] } = await sql.query(`SELECT split_part(pg_read_file('postmaster.pid'), E'\n', 1)::int AS pid`)
  return {
    url,
    sql,
    log: join(server.folder, 'postgres.log'),
    pid: Number(row.pid),
    /** From the next connection on, statements that take longer are logged with their plans as they ran. */
    explainSlow: async (/** @type {number} */ thresholdMs) => {
      const settings = {
        session_preload_libraries: 'auto_explain',
        'auto_explain.log_min_duration': `${thresholdMs}ms`,
        'auto_explain.log_analyze': 'on',
      }
      for (const [name, value] of Object.entries(settings)) await sql.query(`ALTER SYSTEM SET ${name} = '${value}'`)
      await sql.query('SELECT pg_reload_conf()')
    },
    stop: async () => {
      await sql.end()
      await server.stop()
    },
  }
}
