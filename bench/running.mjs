/**
 * A variant in processes of its own: started, loaded, stopped, and cleaned up after.
 */
import { join } from 'node:path'
import { streamKeys } from '../dist/client/redis-names.js'
import { outputOf, startChild } from './child.mjs'
import { load } from './load.mjs'
import { variants } from './variants.mjs'

/**
 * @typedef {import('./stage.mjs').Stage} Stage
 * @typedef {import('./variants.mjs').VariantName} VariantName
 * @typedef {import('./variants.mjs').Role} Role
 * @typedef {Awaited<ReturnType<typeof startVariant>>} Running
 */

/** More than any variant ends per second on two cores: room that a first load must find among the seeded sessions. */
const ROOM_PER_SECOND = 20_000

const START_LIMIT_MS = 30_000

/** Each start has log files of its own. */
let starts = 0

/**
 * Starts the variant's processes and returns when they serve.
 *
 * @param {Stage} stage
 * @param {{ name: VariantName, nodeOptions?: readonly string[] }} what
 */
export const startVariant = async (stage, { name, nodeOptions = [] }) => {
  const variant = variants[name]
  const redisUrl = variant.redis && stage.redis !== null ? { REDIS_URL: stage.redis.url } : {}
  starts += 1
  const started = variant.roles.map((role) => ({
    role,
    child: startChild({
      command: process.execPath,
      parameters: [...nodeOptions.map((option) => option.replace('{role}', role)), ...variant.command],
      env: { ...stage.settings, ...variant.settings, ...redisUrl, ROLES: role },
      log: join(stage.folder, `${name}-${role}-${starts}.log`),
    }),
  }))
  const told = []
  for (const { role, child } of started) {
    const line = await outputOf(child, { what: `${name} (${role})`, withinMs: START_LIMIT_MS, find: findStarted })
    told.push(JSON.parse(line))
  }
  const { apiUrl, opsUrl = null } = told[0]
  return {
    name,
    url: String(apiUrl),
    opsUrl: /** @type {string | null} */ (opsUrl),
    /** @type {Partial<Record<Role, number>>} */
    pids: Object.fromEntries(started.map(({ role, child }) => [role, child.pid])),
    /** The most that was seen of it per second, by connections. */
    fastest: /** @type {Map<number, number>} */ (new Map()),
    /** What the product has logged so far as a warning or worse: how often, by process and event. */
    warnings: () => Object.fromEntries(started.flatMap(({ role, child }) => countWarnings(role, child.output()))),
    /** The API first, so that what it still waits for is answered. */
    stop: async () => {
      for (const { role, child } of started) {
        if (!(await child.end())) throw new Error(`${name} (${role}) did not end cleanly:\n${child.output().slice(-2_000)}`)
      }
    },
  }
}

const isWhole = (/** @type {string} */ line) => line.startsWith('{') && line.endsWith('}')

const findStarted = (/** @type {string} */ output) =>
  output.split('\n').find((line) => line.includes('"service.started"') && isWhole(line)) ?? null

/** pino's level 40 is a warning; lines that are not JSON come from Node itself. */
const countWarnings = (/** @type {Role} */ role, /** @type {string} */ output) => {
  /** @type {Map<string, number>} */
  const times = new Map()
  for (const line of output.split('\n').filter((text) => text !== '')) {
    const { level = 40, event = 'said something' } = isWhole(line) ? JSON.parse(line) : { event: line.slice(0, 80) }
    const name = `${role} ${event}`
    if (level >= 40 && event !== 'service.started') times.set(name, (times.get(name) ?? 0) + 1)
  }
  return [...times]
}

/**
 * Makes sure that there are enough sessions for a load; seeding must not fall into what is measured.
 *
 * @param {Stage} stage
 * @param {Running} running
 * @param {{ connections: number, seconds: number }} options
 */
export const makeRoom = ({ sessions }, running, { connections, seconds }) => {
  const most = Math.min(ROOM_PER_SECOND, 2 * (running.fastest.get(connections) ?? ROOM_PER_SECOND))
  return sessions.walkFor(Math.ceil(most * seconds))
}

/**
 * Loads for a while on sessions that nobody has used, or, where the variant ends none, on the same ones.
 *
 * @param {Stage} stage
 * @param {Running} running
 * @param {{ connections: number, seconds: number, detail?: boolean }} options
 */
export const loadOnce = async (stage, running, { connections, seconds, detail = false }) => {
  const { sessions, tokensFile } = stage
  const walk = await makeRoom(stage, running, { connections, seconds })
  const loaded = await load({ url: running.url, connections, seconds, walk, tokensFile, detail })
  running.fastest.set(connections, Math.max(loaded.perSecond, running.fastest.get(connections) ?? 0))
  if (variants[running.name].ends) sessions.used(loaded.nextPosition)
  return { walk, loaded }
}

/** A fresh process is slow, on a busy machine for longer: it has answered so much before it is measured. */
const WARM_ANSWERS = 2_000
const WARM_AT_MOST_SECONDS = 15

/**
 * @param {Stage} stage
 * @param {Running} running
 * @param {{ leastSeconds: number }} options
 */
export const warmUp = async (stage, running, { leastSeconds }) => {
  let answered = 0
  for (let second = 0; second < WARM_AT_MOST_SECONDS; second += 1) {
    if (second >= leastSeconds && answered >= WARM_ANSWERS) return
    const { loaded } = await loadOnce(stage, running, { connections: 64, seconds: 1 })
    answered += loaded.answered
  }
}

/** What a variant left to be handed on must not become the work of the next. */
export const clean = async (/** @type {Stage} */ { postgres, redis }) => {
  await postgres.sql.query(`UPDATE commits
    SET routed_at = coalesce(routed_at, now()), enforced_at = coalesce(enforced_at, now()), enforced_again_at = now()
    WHERE routed_at IS NULL OR enforced_at IS NULL OR enforced_again_at IS NULL`)
  if (redis === null) return
  // All but the stream: a Redis that has lost it is written again from Postgres, and that would be the next one's work.
  for await (const keys of redis.client.scanStream({ count: 5_000 })) {
    const others = /** @type {string[]} */ (keys).filter((key) => !key.startsWith('{curfew}:'))
    if (others.length > 0) await redis.client.unlink(...others)
  }
  // A variant without Redis has ended sessions that are not on the stream; so it is said that they are.
  const { rows: [{ last }] } = await postgres.sql.query('SELECT coalesce(max(id), 0)::text AS last FROM commits')
  await redis.client.hset(streamKeys.state, 'commit', last)
}
