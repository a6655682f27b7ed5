/**
 * Everything that a run stands on: a folder, Postgres, Redis, an issuer, seeded sessions. `withStage` takes it down
 * whatever happens, also on SIGINT and SIGTERM and when the run's time is up.
 */
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { migrateQueue } from '../dist/queue/backend.js'
import { migrate } from '../dist/store/migrations.js'
import { endAll } from './child.mjs'
import { startPostgres } from './postgres-server.mjs'
import { redisBinary, startRedis } from './redis-server.mjs'
import { createSessions } from './sessions.mjs'
import { startIssuer } from './token-issuer.mjs'

/**
 * @typedef {object} Stage
 * @property {string} folder
 * @property {string} tokensFile
 * @property {import('./token-issuer.mjs').TokenIssuer} issuer
 * @property {import('./postgres-server.mjs').Postgres} postgres
 * @property {import('./redis-server.mjs').RedisServer | null} redis
 * @property {import('./sessions.mjs').Sessions} sessions
 * @property {Record<string, string>} settings  The environment of every variant's processes, besides Redis and roles.
 */

/** What differs from the product's defaults, and why. */
export const productSettings = {
  NODE_ENV: 'production',
  HOST: '127.0.0.1',
  PORT: '0',
  OPS_PORT: '0',
}

class OutOfTime extends Error {}

/**
 * @template T
 * @param {{ limitMs: number, say: (line: string) => void, sessions: number, lifetimeSeconds?: number, settings?: Record<string, string> }} options
 * @param {(stage: Stage) => Promise<T>} use
 * @returns {Promise<T>}
 */
export const withStage = async ({ limitMs, say, sessions: count, lifetimeSeconds, settings = {} }, use) => {
  const folder = mkdtempSync(join(tmpdir(), 'curfew-bench-'))
  /** @type {(() => Promise<unknown>)[]} */
  const undo = []
  /** @type {(error: Error) => void} */
  let interrupt = () => {}
  const interrupted = new Promise((/** @type {(value: never) => void} */ _, reject) => {
    interrupt = reject
  })
  const onSignal = (/** @type {string} */ signal) => interrupt(new Error(`Stopped by ${signal}`))
  process.on('SIGINT', onSignal)
  process.on('SIGTERM', onSignal)
  const timer = setTimeout(() => interrupt(new OutOfTime(`Not done within ${Math.round(limitMs / 60_000)} minutes`)), limitMs)

  const build = async () => {
    const issuer = await startIssuer()
    undo.push(issuer.stop)
    const tokensFile = join(folder, 'tokens')
    writeFileSync(tokensFile, `${issuer.tokens.join('\n')}\n`)
    const postgres = await startPostgres(folder)
    undo.push(postgres.stop)
    const redis = redisBinary === null ? null : await startRedis(redisBinary, folder)
    if (redis !== null) undo.push(redis.stop)
    await migrate(postgres.url)
    await migrateQueue(postgres.url)
    const sessions = createSessions({ sql: postgres.sql, issuer: issuer.url, ...(lifetimeSeconds === undefined ? {} : { lifetimeSeconds }) })
    say(`Seeding ${count.toLocaleString('en')} live sessions`)
    await sessions.seed(count)
    const secret = () => randomBytes(32).toString('base64')
    return use({
      folder,
      tokensFile,
      issuer,
      postgres,
      redis,
      sessions,
      settings: {
        ...productSettings,
        PATH: process.env['PATH'] ?? '',
        // Connections of the baselines' pools, to see whether they would be faster with more.
        ...(process.env['BENCH_POOL'] === undefined ? {} : { BENCH_POOL: process.env['BENCH_POOL'] }),
        DATABASE_URL: postgres.url,
        ISSUERS: issuer.entries,
        QUEUE_SECRET: secret(),
        KEY_ENCRYPTION_KEY: secret(),
        ...settings,
      },
    })
  }

  try {
    return await Promise.race([build(), interrupted])
  } finally {
    clearTimeout(timer)
    endAll()
    for (const stop of undo.reverse()) await stop().catch((error) => say(`Not stopped cleanly: ${error}`))
    rmSync(folder, { recursive: true, force: true })
    process.off('SIGINT', onSignal)
    process.off('SIGTERM', onSignal)
  }
}
