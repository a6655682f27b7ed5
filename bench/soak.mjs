/**
 * Ten minutes of one load on the product. Memory of every process, Redis, and open handles are looked at throughout;
 * "flat" compares the last quarter with the second one, so that warming up counts for nothing.
 *
 * Tombstones are kept for as long as a session or a token of it could live, a day by default, so with them Redis grows
 * by design. Here sessions and tokens live half a minute: in a Redis that is flat, tombstones go as others come.
 */
import { readRedisMemory } from './counters.mjs'
import { loadOnce, startVariant, warmUp } from './running.mjs'
import { checkTruth } from './truth.mjs'
import { openHandles, residentBytes } from './usage.mjs'

/**
 * @typedef {import('./stage.mjs').Stage} Stage
 * @typedef {import('./variants.mjs').VariantName} VariantName
 * @typedef {Awaited<ReturnType<typeof takeSample>>} Sample
 */

export const SOAK_LIFETIME_SECONDS = 30
/** More than the product commits without the queue. */
const CONNECTIONS = 256
/** What a garbage collector or an allocator may keep without leaking. */
const TOLERATED_GROWTH = 0.1
const TOLERATED_BYTES = 24 * 2 ** 20
const TOLERATED_HANDLES = 8

const takeSample = async (/** @type {Stage} */ stage, /** @type {Partial<Record<'api' | 'worker', number>>} */ pids) => {
  const memory = stage.redis === null ? null : await readRedisMemory(stage.redis.client)
  return {
    apiBytes: residentBytes(pids.api ?? 0),
    workerBytes: residentBytes(pids.worker ?? 0),
    redisBytes: memory?.usedBytes ?? 0,
    queueBytes: memory?.queueBytes ?? 0,
    apiHandles: openHandles(pids.api ?? 0),
    workerHandles: openHandles(pids.worker ?? 0),
  }
}

const median = (/** @type {number[]} */ values) => values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0

const describe = (/** @type {Sample & { perSecond: number, p99Ms: number }} */ sample) => {
  const mega = (/** @type {number} */ bytes) => `${(bytes / 2 ** 20).toFixed(0)} MB`
  return [
    `${sample.perSecond.toFixed(0)}/s`,
    `p99 ${sample.p99Ms.toFixed(1)} ms`,
    `api ${mega(sample.apiBytes)}`,
    `worker ${mega(sample.workerBytes)}`,
    `redis ${mega(sample.redisBytes)} (queue ${mega(sample.queueBytes)})`,
    `handles ${sample.apiHandles} + ${sample.workerHandles}`,
  ].join('  ')
}

/** @param {readonly Sample[]} samples */
const judge = (samples) => {
  const quarter = Math.max(1, Math.floor(samples.length / 4))
  const parts = /** @type {const} */ (['apiBytes', 'workerBytes', 'redisBytes', 'queueBytes', 'apiHandles', 'workerHandles'])
  return parts.map((part) => {
    const early = median(samples.slice(quarter, 2 * quarter).map((sample) => sample[part]))
    const late = median(samples.slice(-quarter).map((sample) => sample[part]))
    const slack = part.endsWith('Handles') ? TOLERATED_HANDLES : Math.max(TOLERATED_BYTES, early * TOLERATED_GROWTH)
    return { part, early, late, flat: late - early <= slack }
  })
}

/**
 * @param {Stage} stage
 * @param {{ name: VariantName, say: (line: string) => void, slices: number, sliceSeconds: number }} options  Between slices the load pauses
 *   while the answers are checked.
 */
export const soak = async (stage, { name, say, slices, sliceSeconds }) => {
  const running = await startVariant(stage, { name })
  await warmUp(stage, running, { leastSeconds: 3 })
  const samples = []
  const problems = []
  for (let slice = 1; slice <= slices; slice += 1) {
    const { walk, loaded } = await loadOnce(stage, running, { connections: CONNECTIONS, seconds: sliceSeconds })
    const sample = { perSecond: loaded.perSecond, p99Ms: loaded.p99Ms, ...(await takeSample(stage, running.pids)) }
    samples.push(sample)
    say(`${String(slice * sliceSeconds).padStart(4)} s  ${describe(sample)}`)
    problems.push(...(await checkTruth(stage, running, { walk, loaded })).problems)
  }
  await running.stop()
  return { name, connections: CONNECTIONS, seconds: slices * sliceSeconds, samples, judged: judge(samples), problems }
}
