/**
 * What a data folder's `postmaster.pid` means before a start: nothing (stale), a server that a crash left behind
 * (stopped here), or one that another process is using (refused).
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'

/** Longer than a keeper gives Postgres to shut down. */
const GONE_MS = 15_000

type Found = 'free' | 'used' | 'changing' | 'silent'

/**
 * Resolves when no server uses the folder.
 *
 * @throws Error where a living process uses it.
 */
export const stopLeftover = async (options: { data: string; user: string; password: string; lock: number }): Promise<void> => {
  const pidFile = join(options.data, 'postmaster.pid')
  const deadline = Date.now() + GONE_MS
  while (existsSync(pidFile) && Date.now() < deadline) {
    const [pid, , , port] = readFileSync(pidFile, 'utf8').split('\n')
    if (pid === undefined || port === undefined || !isAlive(Number(pid))) return
    const found = await look({ ...options, port: Number(port) })
    if (found === 'used') throw new Error(`Curfew already runs from this folder (its Postgres is process ${pid}); stop it first.`)
    // It accepted our password, so the number is that server's own and not a stranger's who got it later.
    if (found === 'free') process.kill(Number(pid), 'SIGINT')
    // A process that listens to nothing may be starting, stopping, or a stranger: Postgres itself tells them apart.
    await sleep(100)
  }
}

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

const look = async (options: { port: number; user: string; password: string; lock: number }): Promise<Found> => {
  const { port, user, password, lock } = options
  const client = new pg.Client({ host: '127.0.0.1', port, user, password, database: 'postgres', connectionTimeoutMillis: 1_000 })
  client.on('error', () => {})
  try {
    await client.connect()
    const { rows } = await client.query<{ free: boolean }>('SELECT pg_try_advisory_lock($1) AS free', [lock])
    return rows[0]?.free === true ? 'free' : 'used'
  } catch (error) {
    return (error as { code?: unknown }).code === '57P03' ? 'changing' : 'silent'
  } finally {
    await client.end().catch(() => {})
  }
}
