/**
 * `npm run bench`: what one DELETE costs, side by side with what a team would write otherwise. Stops by itself, ends
 * only what it started, and leaves a JSON, a plot and a text in `bench/results`.
 *
 * Exit codes: 0 it ran and every answer was true (whether goals are met is said, not judged; a soak must be flat),
 * 1 it did not, 2 the command line is wrong.
 */
import { judgeBulk, renderBulk } from './bulk/judge.mjs'
import { measureBulk } from './bulk/measure.mjs'
import { judgeDeliveries, renderDeliveries } from './deliveries/judge.mjs'
import { measureDeliveries } from './deliveries/measure.mjs'
import { UsageError, readOptions } from './options.mjs'
import { plot } from './plot.mjs'
import { profile } from './profile.mjs'
import { redisBinary } from './redis-server.mjs'
import { medianCells, renderGoals, renderProfile, renderSideBySide, renderSoak } from './report.mjs'
import { measureChecks, measurePropagation, renderGuard } from './guard.mjs'
import { measureRouting, renderRouting } from './routing.mjs'
import { resultsFolder, say, tell, writeResult } from './results.mjs'
import { conclude, measureSideBySide } from './side-by-side.mjs'
import { SOAK_LIFETIME_SECONDS, soak } from './soak.mjs'
import { withStage } from './stage.mjs'
import { readSurroundings } from './surroundings.mjs'

/** @typedef {import('./options.mjs').Options} Options */

/** A quick run must end within two minutes on an idle machine; a full one takes about 15, a soak about 13. */
const LIMIT_MS = { quick: 240_000, other: 3_600_000 }

const productOf = (/** @type {Options} */ { backend }) =>
  backend === 'postgres' || redisBinary === null ? /** @type {const} */ ('curfew-postgres') : /** @type {const} */ ('curfew')

const measure = async (/** @type {Options} */ options) => {
  const { mode, quick, sessions, seconds, save } = options
  const stageOptions = { limitMs: quick ? LIMIT_MS.quick : LIMIT_MS.other, say, sessions }
  const { surroundings, measured } = await withStage(stageOptions, async (stage) => ({
    surroundings: await readSurroundings(stage),
    measured: await measureSideBySide(stage, options),
  }))
  const { products, problems } = conclude(measured)
  const medians = medianCells(measured.repetitions)
  const title = `medians of ${measured.repetitions.length}, ${seconds} s each, load by ${surroundings.loadGenerator}, ` +
    `commit ${surroundings.commit.slice(0, 10)}${surroundings.changed.length > 0 ? ' with changes' : ''}`
  tell(renderSideBySide({ title, medians, faults: measured.faults, products, problems }))
  const summary = { date: new Date().toISOString(), options, ...surroundings, medians, products, faults: measured.faults, problems }
  const result = { ...summary, repetitions: measured.repetitions }
  writeResult({ mode, result, summary: save ? summary : null, svg: plot(medians, `Requests per second: ${title}`) })
  return problems.length === 0
}

const measureSoak = async (/** @type {Options} */ options) => {
  const { sessions, repetitions, seconds } = options
  const lifetime = { lifetimeSeconds: SOAK_LIFETIME_SECONDS, settings: { MAX_TOKEN_LIFETIME: String(SOAK_LIFETIME_SECONDS) } }
  const { surroundings, result } = await withStage({ limitMs: LIMIT_MS.other, say, sessions, ...lifetime }, async (stage) => ({
    surroundings: await readSurroundings(stage),
    result: await soak(stage, { name: productOf(options), say, slices: repetitions, sliceSeconds: seconds }),
  }))
  const what = `${result.name}, ${result.connections} connections for ${result.seconds} s, commit ${surroundings.commit.slice(0, 10)}`
  tell(['', what, ...renderSoak(result)])
  writeResult({ mode: 'soak', result: { date: new Date().toISOString(), options, ...surroundings, ...result } })
  return result.problems.length === 0 && result.judged.every(({ flat }) => flat)
}

const measureProfiles = async (/** @type {Options} */ options) => {
  const { sessions, seconds } = options
  const { surroundings, results } = await withStage({ limitMs: LIMIT_MS.other, say, sessions }, async (stage) => {
    const before = await readSurroundings(stage)
    const profiled = []
    for (const connections of options.connections) {
      profiled.push(await profile(stage, { name: productOf(options), connections, seconds, folder: resultsFolder }))
    }
    return { surroundings: before, results: profiled }
  })
  for (const result of results) tell(['', ...renderProfile(result)])
  writeResult({ mode: 'profile', result: { date: new Date().toISOString(), options, ...surroundings, results } })
  return true
}

/** Eight receivers with the default concurrency of eight keep all of a worker's attempts in flight. */
const DELIVERY_SIZES = {
  full: { healthy: 8, each: 1_500, warmUpEach: 250, backlog: { receivers: 50, deliveries: 100_000 } },
  quick: { healthy: 8, each: 500, warmUpEach: 250, backlog: { receivers: 50, deliveries: 20_000 } },
}

const measureHandingOn = async (/** @type {Options} */ options) => {
  const { quick, repetitions } = options
  const size = DELIVERY_SIZES[quick ? 'quick' : 'full']
  const { surroundings, measured } = await withStage({ limitMs: quick ? LIMIT_MS.quick : LIMIT_MS.other, say, sessions: 1_000 }, async (stage) => ({
    surroundings: await readSurroundings(stage),
    measured: await measureDeliveries(stage, { repetitions, size, say }),
  }))
  const judged = judgeDeliveries(measured)
  const title = `Deliveries, medians of ${repetitions}, commit ${surroundings.commit.slice(0, 10)}${surroundings.changed.length > 0 ? ' with changes' : ''}`
  tell(['', title, '', ...renderDeliveries(measured), '', ...renderGoals(judged)])
  writeResult({ mode: 'deliveries', result: { date: new Date().toISOString(), options, ...surroundings, size, ...measured, goals: judged } })
  return true
}

const measureGuard = async (/** @type {Options} */ options) => {
  const { sessions, seconds, connections } = options
  const { surroundings, result } = await withStage({ limitMs: LIMIT_MS.other, say, sessions }, async (stage) => ({
    surroundings: await readSurroundings(stage),
    result: { propagation: await measurePropagation(stage, { connections, seconds, say }), checks: await measureChecks(stage) },
  }))
  tell(['', ...renderGuard(result)])
  writeResult({ mode: 'guard', result: { date: new Date().toISOString(), options, ...surroundings, ...result } })
  return result.propagation.every(({ missed }) => missed === 0)
}

/** Log-outs a second that leave the processor time to spare, so that what is measured is waiting and not saturation. */
const STEADY_PER_SECOND = 200

const measureRevocations = async (/** @type {Options} */ options) => {
  const { quick, repetitions, sessions } = options
  const size = { sessions, perSecond: STEADY_PER_SECOND, idleSeconds: quick ? 10 : 20, besideSeconds: quick ? 20 : 60 }
  const stageOptions = { limitMs: quick ? LIMIT_MS.quick : LIMIT_MS.other, say, sessions: 100_000 }
  const { surroundings, measured } = await withStage(stageOptions, async (stage) => ({
    surroundings: await readSurroundings(stage),
    measured: await measureBulk(stage, { repetitions, size, say }),
  }))
  const judged = judgeBulk(measured)
  const title = `Revocations of ${sessions.toLocaleString('en')} sessions, medians of ${repetitions}, commit ${surroundings.commit.slice(0, 10)}${surroundings.changed.length > 0 ? ' with changes' : ''}`
  tell(['', title, '', ...renderBulk(measured), '', ...renderGoals(judged)])
  writeResult({ mode: 'bulk', result: { date: new Date().toISOString(), options, ...surroundings, size, ...measured, goals: judged } })
  return true
}

const measureRouters = async (/** @type {Options} */ options) => {
  const { repetitions, sessions } = options
  const { surroundings, measured } = await withStage({ limitMs: LIMIT_MS.other, say, sessions: 1_000 }, async (stage) => ({
    surroundings: await readSurroundings(stage),
    measured: await measureRouting(stage, { repetitions, sessions, say }),
  }))
  tell(['', `Routing, medians of ${repetitions}, ${sessions.toLocaleString('en')} sessions each, commit ${surroundings.commit.slice(0, 10)}`, '', ...renderRouting(measured)])
  writeResult({ mode: 'routing', result: { date: new Date().toISOString(), options, ...surroundings, measured } })
  return true
}

const modes = {
  bulk: measureRevocations, measure, guard: measureGuard, soak: measureSoak, profile: measureProfiles, deliveries: measureHandingOn, routing: measureRouters,
}

try {
  const options = readOptions(process.argv.slice(2))
  process.exitCode = (await modes[options.mode](options)) ? 0 : 1
} catch (error) {
  const text = error instanceof UsageError ? error.message : error instanceof Error ? error.stack : error
  process.stderr.write(`${text}\n`)
  process.exitCode = error instanceof UsageError ? 2 : 1
}
// Nothing is left to do; a handle that someone forgot must not keep the run.
process.exit()
