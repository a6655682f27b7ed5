/**
 * One variant in fresh processes: warmed up, then loaded at each number of connections. Everything is counted from
 * just before the load until just after it; what was answered is checked afterwards, when nothing is measured.
 */
import { commandsBetween, readPostgresCounters, readRedisCommands, readRedisMemory, resetPostgresCounters } from './counters.mjs'
import { clean, loadOnce, makeRoom, startVariant, warmUp } from './running.mjs'
import { checkTruth } from './truth.mjs'
import { cpuSeconds, familyCpuSeconds, residentBytes } from './usage.mjs'
import { variants } from './variants.mjs'

/**
 * @typedef {import('./stage.mjs').Stage} Stage
 * @typedef {import('./variants.mjs').VariantName} VariantName
 * @typedef {import('./running.mjs').Running} Running
 * @typedef {Awaited<ReturnType<typeof measureCell>>} Cell
 */

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
  await makeRoom(stage, running, { connections, seconds })
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
  const cpu = {
    api: cpuPerThousand('api'),
    worker: cpuPerThousand('worker'),
    postgres: cpuPerThousand('postgres'),
    redis: cpuPerThousand('redis'),
  }
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

/**
 * Everything of one variant in one repetition. Leaves Redis empty and the outbox settled for the next.
 *
 * @param {Stage} stage
 * @param {{ name: VariantName, connections: readonly number[], seconds: number, warmUpSeconds: number,
 *   settleSeconds: number, onCell: (cell: Cell) => void }} options
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
