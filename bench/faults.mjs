/**
 * Redis is frozen (connected but silent), then gone (killed and started again), each for five seconds in the middle of
 * a load of 256 connections on the product, enough for it to use the queue. What is asked: the slowest answer, requests that failed, and whether
 * everything was handed on when Redis was back.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { clean, loadOnce, startVariant, warmUp } from './running.mjs'
import { checkTruth } from './truth.mjs'

/** @typedef {import('./stage.mjs').Stage} Stage */

const CONNECTIONS = 256
const AWAY_SECONDS = 5

/** @typedef {Awaited<ReturnType<typeof measureFault>>} Fault */

const unenforced = async (/** @type {Stage} */ { postgres }) => {
  const { rows: [row] } = await postgres.sql.query('SELECT coalesce(sum(sessions), 0)::int AS sessions FROM commits WHERE enforced_at IS NULL')
  return Number(row.sessions)
}

/** Seconds until caches have been told of every commit; null where it was not done in time. */
const caughtUp = async (/** @type {Stage} */ stage, /** @type {number} */ limitSeconds) => {
  const since = performance.now()
  for (;;) {
    const seconds = (performance.now() - since) / 1_000
    if ((await unenforced(stage)) === 0) return seconds
    if (seconds > limitSeconds) return null
    await sleep(100)
  }
}

const trouble = {
  frozen: async (/** @type {import('./redis-server.mjs').RedisServer} */ redis) => {
    redis.freeze()
    await sleep(AWAY_SECONDS * 1_000)
    redis.thaw()
  },
  gone: async (/** @type {import('./redis-server.mjs').RedisServer} */ redis) => {
    await redis.kill()
    await sleep(AWAY_SECONDS * 1_000)
    redis.restart()
  },
}

/**
 * @param {Stage} stage
 * @param {{ kind: keyof typeof trouble, beforeSeconds: number, afterSeconds: number, catchUpSeconds: number }} options
 */
export const measureFault = async (stage, { kind, beforeSeconds, afterSeconds, catchUpSeconds }) => {
  const { redis } = stage
  if (redis === null) throw new Error('There is no Redis to freeze')
  const running = await startVariant(stage, { name: 'curfew' })
  await warmUp(stage, running, { leastSeconds: 2 })
  const seconds = beforeSeconds + AWAY_SECONDS + afterSeconds
  const loading = loadOnce(stage, running, { connections: CONNECTIONS, seconds, detail: true })
  const troubling = sleep(beforeSeconds * 1_000).then(() => trouble[kind](redis))
  const [{ walk, loaded }] = await Promise.all([loading, troubling])
  const pending = await unenforced(stage)
  const caughtUpSeconds = await caughtUp(stage, catchUpSeconds)
  const truth = await checkTruth(stage, running, { walk, loaded })
  const warnings = running.warnings()
  await running.stop()
  await clean(stage)
  return {
    kind,
    connections: CONNECTIONS,
    awaySeconds: AWAY_SECONDS,
    failed: loaded.failed,
    statuses: loaded.statuses,
    worstMs: loaded.maxMs,
    p99Ms: loaded.p99Ms,
    /** 200s in each second of the run; Redis is away from `beforeSeconds` on. */
    bySecond: Array.from({ length: seconds }, (_, at) => loaded.seconds[String(at + 1)] ?? 0),
    beforeSeconds,
    /** Sessions of which caches were not yet told when the load ended, and how long that took. */
    unenforcedSessions: pending,
    caughtUpSeconds,
    warnings,
    truth,
  }
}
