/**
 * One variant in fresh processes: warmed up, then loaded at each number of connections. Everything is counted from
 * just before the load until just after it; what was answered is checked afterwards, when nothing is measured.
 */
import { join } from 'node:path'
import { outputOf, startChild } from './child.mjs'
import { commandsBetween, readPostgresCounters, readRedisCommands, readRedisMemory, resetPostgresCounters } from './counters.mjs'
import { load } from './load.mjs'
import { checkTruth } from './truth.mjs'
import { cpuSeconds, familyCpuSeconds, residentBytes } from './usage.mjs'
import { variants } from './variants.mjs'

/**
 * @typedef {import('./stage.mjs').Stage} Stage
 * @typedef {import('./variants.mjs').VariantName} VariantName
 * @typedef {import('./variants.mjs').Role} Role
 * @typedef {Awaited<ReturnType<typeof startVariant>>} Running
 * @typedef {Awaited<ReturnType<typeof measureCell>>} Cell
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
      env: { ...stage.settings, ...redisUrl, ROLES: role },
      log: join(stage.folder, `${name}-${role}-${starts}.log`),
    }),
  }))
  const told = []
  for (const { role, child } of started) {
    const find = (/** @type {string} */ output) => output.split('\n').find((line) => line.includes('"service.started"') && line.endsWith('}')) ?? null
    told.push(JSON.parse(await outputOf(child, { what: `${name} (${role})`, withinMs: START_LIMIT_MS, find })))
  }
  const { apiUrl, opsUrl = null } = told[0]
  return {
    name,
    url: String(apiUrl),
    opsUrl: /** @type {string | null} */ (opsUrl),
    pids: /** @type {Partial<Record<Role, number>>} */ (Object.fromEntries(started.map(({ role, child }) => [role, child.pid]))),
    /** The most that was seen of it per second, by connections. */
    fastest: /** @type {Map<number, number>} */ (new Map()),
    /** What the product has logged so far as a warning or worse: how often, by process and event. */
    warnings: () => Object.fromEntries(started.flatMap(({ role, child }) => countWarnings(child.output()).map(([event, times]) => [`${role} ${event}`, times]))),
    /** The API first, so that what it still waits for is answered. */
    stop: async () => {
      for (const { role, child } of started) {
        if (!(await child.end())) throw new Error(`${name} (${role}) did not end cleanly:\n${child.output().slice(-2_000)}`)
      }
    },
  }
}

/** pino's level 40 is a warning; lines that are not JSON come from Node itself. */
const countWarnings = (/** @type {string} */ output) => {
  /** @type {Map<string, number>} */
  const times = new Map()
  for (const line of output.split('\n').filter((text) => text !== '')) {
    const { level = 40, event = 'said something' } = line.startsWith('{') && line.endsWith('}') ? JSON.parse(line) : { event: line.slice(0, 80) }
    if (level >= 40 && event !== 'service.started') times.set(event, (times.get(event) ?? 0) + 1)
  }
  return [...times]
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
  const most = Math.min(ROOM_PER_SECOND, 2 * (running.fastest.get(connections) ?? ROOM_PER_SECOND))
  const walk = await sessions.walkFor(Math.ceil(most * seconds))
  const loaded = await load({ url: running.url, connections, seconds, walk, tokensFile, detail })
  running.fastest.set(connections, Math.max(loaded.perSecond, running.fastest.get(connections) ?? 0))
  if (variants[running.name].ends) sessions.used(loaded.nextPosition)
  return { walk, loaded }
}

const takeCpu = (/** @type {Stage} */ stage, /** @type {Running} */ running) => ({
  api: cpuSeconds(running.pids.api ?? 0),
  worker: running.pids.worker === undefined ? 0 : cpuSeconds(running.pids.worker),
  postgres: familyCpuSeconds(stage.postgres.pid),
  redis: stage.redis === null ? 0 : cpuSeconds(stage.redis.pid),
})

/**
 * @param {Stage} stage
 * @param {Running} running
 * @param {{ connections: number, seconds: number, settleSeconds: number }} options
 */
const measureCell = async (stage, running, { connections, seconds, settleSeconds }) => {
  const { postgres, redis } = stage
  if (settleSeconds > 0) await loadOnce(stage, running, { connections, seconds: settleSeconds })
  await resetPostgresCounters(postgres.sql)
  const commandsBefore = redis === null ? {} : await readRedisCommands(redis.client)
  const cpuBefore = takeCpu(stage, running)
  const { walk, loaded } = await loadOnce(stage, running, { connections, seconds })
  const cpuAfter = takeCpu(stage, running)
  const counted = await readPostgresCounters(postgres.sql)
  const commands = redis === null ? [] : commandsBetween(commandsBefore, await readRedisCommands(redis.client))
  const memory = redis === null ? null : await readRedisMemory(redis.client)
  const per = (/** @type {number} */ amount) => amount / Math.max(1, loaded.answered)
  const cpuPerThousand = (/** @type {keyof typeof cpuAfter} */ part) => per(cpuAfter[part] - cpuBefore[part]) * 1_000
  const cpu = { api: cpuPerThousand('api'), worker: cpuPerThousand('worker'), postgres: cpuPerThousand('postgres'), redis: cpuPerThousand('redis') }
  return {
    variant: running.name,
    connections,
    seconds,
    perSecond: loaded.perSecond,
    p50Ms: loaded.p50Ms,
    p90Ms: loaded.p90Ms,
    p99Ms: loaded.p99Ms,
    maxMs: loaded.maxMs,
    answered: loaded.answered,
    failed: loaded.failed,
    /** Processor seconds per 1,000 requests. */
    cpu: { ...cpu, all: cpu.api + cpu.worker + cpu.postgres + cpu.redis, load: per(loaded.cpuSeconds) * 1_000 },
    redisCommandsPerRequest: per(commands.reduce((sum, { calls }) => sum + calls, 0)),
    statementsPerRequest: per(counted.statements),
    walBytesPerRequest: per(counted.walBytes),
    redisMemory: memory,
    residentBytes: { api: residentBytes(running.pids.api ?? 0), worker: residentBytes(running.pids.worker ?? 0) },
    topStatements: counted.top,
    topCommands: commands.slice(0, 10),
    warnings: running.warnings(),
    truth: variants[running.name].ends ? await checkTruth(stage, running, { walk, loaded }) : null,
  }
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
  for (let second = 1; second <= WARM_AT_MOST_SECONDS && (second <= leastSeconds || answered < WARM_ANSWERS); second += 1) {
    const { loaded } = await loadOnce(stage, running, { connections: 64, seconds: 1 })
    answered += loaded.answered
  }
}

/**
 * Everything of one variant in one repetition. Leaves Redis empty and the outbox settled for the next.
 *
 * @param {Stage} stage
 * @param {{ name: VariantName, connections: readonly number[], seconds: number, warmUpSeconds: number, settleSeconds: number, onCell: (cell: Cell) => void }} options
 */
export const measureVariant = async (stage, { name, connections, seconds, warmUpSeconds, settleSeconds, onCell }) => {
  const running = await startVariant(stage, { name })
  const cells = []
  await warmUp(stage, running, { leastSeconds: warmUpSeconds })
  for (const count of connections) {
    const cell = await measureCell(stage, running, { connections: count, seconds, settleSeconds })
    onCell(cell)
    cells.push(cell)
  }
  await running.stop()
  await clean(stage)
  return cells
}

/** What a variant left to be handed on must not become the work of the next. */
export const clean = async (/** @type {Stage} */ { postgres, redis }) => {
  await postgres.sql.query(`UPDATE commits SET routed_at = coalesce(routed_at, now()), enforced_at = coalesce(enforced_at, now()), enforced_again_at = now()
    WHERE routed_at IS NULL OR enforced_at IS NULL OR enforced_again_at IS NULL`)
  await redis?.client.flushall('SYNC')
}
