/**
 * The load, from outside: `wrk` where the machine has it, else `autocannon`, in a process of its own. Connections
 * are kept open and ask again as soon as they are answered.
 */
import { spawn, spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { keepTrack } from './child.mjs'
import { ID_PREFIX } from './sessions.mjs'
import { childrenCpuSeconds } from './usage.mjs'

/**
 * @typedef {object} Loaded
 * @property {number} answered    Requests answered, with whatever status.
 * @property {number} ok          Requests answered 2xx.
 * @property {number} failed      Answered otherwise, broken off, or not answered within the time limit.
 * @property {number} perSecond   2xx answers.
 * @property {number} p50Ms
 * @property {number} p90Ms
 * @property {number} p99Ms
 * @property {number} maxMs
 * @property {number} cpuSeconds  Of the load generator.
 * @property {number} nextPosition
 * @property {Record<string, number>} statuses      Other than 200; only with detail.
 * @property {Record<string, number>} seconds       200s by second; only with detail.
 *
 * @typedef {object} Ask
 * @property {string} url
 * @property {number} connections
 * @property {number} seconds
 * @property {import('./sessions.mjs').Walk} walk
 * @property {string} tokensFile  One bearer token on each line.
 * @property {boolean} [detail]
 */

const here = (/** @type {string} */ name) => fileURLToPath(new URL(name, import.meta.url))

/** `BENCH_LOAD=autocannon` takes it although there is a `wrk`. */
const wrkVersion = process.env['BENCH_LOAD'] === 'autocannon'
  ? undefined
  : /^wrk (\S+)/m.exec(spawnSync('wrk', ['-v'], { encoding: 'utf8' }).stdout ?? '')?.[1]

/** Which load generator this machine has, with its version. */
export const loadGenerator = wrkVersion === undefined ? 'autocannon, in place of wrk' : `wrk ${wrkVersion}`

/** What an answer may take before it counts as lost: longer than any variant's own limit (10 s). */
const ANSWER_LIMIT_SECONDS = 15

const wrkCommand = (/** @type {Ask} */ { url, connections, seconds, walk, tokensFile, detail }) => {
  const threads = connections === 1 ? 1 : 2
  const load = ['-t', threads, '-c', connections, '-d', `${seconds}s`, '--timeout', `${ANSWER_LIMIT_SECONDS}s`]
  const { first, size, step, position } = walk
  const script = [first, size, step, position, ID_PREFIX, tokensFile, threads, detail === true ? 'detail' : 'brief']
  return { threads, command: 'wrk', parameters: [...load, '-s', here('load.lua'), url, '--', ...script].map(String) }
}

const autocannonCommand = (/** @type {Ask} */ ask) => ({
  threads: 1,
  command: process.execPath,
  parameters: [here('autocannon.mjs'), JSON.stringify({ ...ask, answerLimitSeconds: ANSWER_LIMIT_SECONDS })],
})

const run = (/** @type {string} */ command, /** @type {string[]} */ parameters, /** @type {number} */ limitMs) =>
  new Promise((/** @type {(output: string) => void} */ resolve, reject) => {
    const child = spawn(command, parameters, { stdio: ['ignore', 'pipe', 'pipe'], timeout: limitMs, killSignal: 'SIGKILL' })
    keepTrack(child)
    let output = ''
    child.stdout.on('data', (chunk) => (output += chunk))
    child.stderr.on('data', (chunk) => (output += chunk))
    child.once('error', reject)
    child.once('close', (code) => (code === 0 ? resolve(output) : reject(new Error(`${command} failed (${code}):\n${output}`))))
  })

/**
 * Loads the address for so many seconds and says what came of it.
 *
 * @param {Ask} ask
 * @returns {Promise<Loaded>}
 */
export const load = async (ask) => {
  const { command, parameters, threads } = wrkVersion === undefined ? autocannonCommand(ask) : wrkCommand(ask)
  const cpuBefore = childrenCpuSeconds()
  const output = await run(command, parameters, (ask.seconds + ANSWER_LIMIT_SECONDS + 10) * 1_000)
  const text = /^RESULT (.*)$/m.exec(output)?.[1]
  if (text === undefined) throw new Error(`${command} gave no result:\n${output}`)
  const result = JSON.parse(text)
  const ok = result.requests - result.refused
  const nextPosition = ask.walk.position + result.perThread * threads
  if (nextPosition > ask.walk.size) throw new Error('The load ended more sessions than were seeded for it')
  return {
    answered: result.requests,
    ok,
    failed: result.refused + result.broken + result.late,
    perSecond: ok / (result.micros / 1e6),
    p50Ms: result.p50 / 1e3,
    p90Ms: result.p90 / 1e3,
    p99Ms: result.p99 / 1e3,
    maxMs: result.max / 1e3,
    cpuSeconds: childrenCpuSeconds() - cpuBefore,
    nextPosition,
    statuses: result.statuses,
    seconds: result.seconds,
  }
}
