/**
 * `npm run bench`: what one DELETE costs, side by side with what a team would write otherwise. Stops by itself, ends
 * only what it started, and leaves a JSON, a plot and a text in `bench/results`.
 *
 * Exit codes: 0 it ran and every answer was true (whether goals are met is said, not judged), 1 it did not, 2 usage.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { measureFault } from './faults.mjs'
import { costByLoad, judgeFaults, judgeRatios } from './goals.mjs'
import { loadGenerator } from './load.mjs'
import { clean, measureVariant } from './measure.mjs'
import { UsageError, readOptions } from './options.mjs'
import { plot } from './plot.mjs'
import { profile } from './profile.mjs'
import { redisBinary } from './redis-server.mjs'
import { medianCells, renderCells, renderFaults, renderGoals, renderLegend, renderProfile, renderSoak } from './report.mjs'
import { SOAK_LIFETIME_SECONDS, soak } from './soak.mjs'
import { withStage } from './stage.mjs'
import { readSurroundings } from './surroundings.mjs'
import { sessionsWithTwoEvents } from './truth.mjs'
import { usageKnown } from './usage.mjs'
import { variants } from './variants.mjs'

/**
 * @typedef {import('./stage.mjs').Stage} Stage
 * @typedef {import('./options.mjs').Options} Options
 */

const resultsFolder = fileURLToPath(new URL('results', import.meta.url))
const said = /** @type {string[]} */ ([])
/** Shown while it runs. */
const say = (/** @type {string} */ line) => void process.stdout.write(`${line}\n`)
/** Shown, and kept in the result's text. */
const tell = (/** @type {readonly string[]} */ lines) => {
  said.push(...lines)
  for (const line of lines) say(line)
}

const chosenVariants = (/** @type {Options} */ options) => {
  const names = options.variants.filter((name) => !variants[name].redis || redisBinary !== null || name === 'direct')
  for (const name of options.variants) if (!names.includes(name)) say(`Left out, because there is no redis-server: ${name}`)
  return names
}

const measureAll = async (/** @type {Stage} */ stage, /** @type {Options} */ options) => {
  const names = chosenVariants(options)
  const repetitions = []
  for (let repetition = 0; repetition < options.repetitions; repetition += 1) {
    say(`\nRepetition ${repetition + 1} of ${options.repetitions}`)
    const cells = []
    for (const name of repetition % 2 === 0 ? names : names.toReversed()) {
      cells.push(...(await measureVariant(stage, {
        name,
        connections: options.connections,
        seconds: options.seconds,
        warmUpSeconds: options.quick ? 1 : 3,
        settleSeconds: options.quick ? 0 : 1,
        onCell: ({ variant, connections, perSecond, p50Ms, p99Ms, truth, warnings }) => {
          say(`${variant.padEnd(16)} ${String(connections).padStart(4)}  ${perSecond.toFixed(0).padStart(6)}/s  p50 ${p50Ms.toFixed(1)} ms  p99 ${p99Ms.toFixed(1)} ms`)
          for (const [event, times] of Object.entries(warnings)) say(`  logged ${times} times: ${event}`)
          for (const problem of truth?.problems ?? []) say(`  UNTRUE: ${problem}`)
        },
      })))
    }
    repetitions.push(cells)
  }
  const faults = []
  if (options.faults && names.includes('curfew')) {
    const course = options.quick ? { beforeSeconds: 1, afterSeconds: 2, catchUpSeconds: 5 } : { beforeSeconds: 5, afterSeconds: 10, catchUpSeconds: 30 }
    for (const kind of /** @type {const} */ (['frozen', 'gone'])) {
      say(`\nRedis ${kind}`)
      faults.push(await measureFault(stage, { kind, ...course }))
    }
  }
  return { repetitions, faults, twice: await sessionsWithTwoEvents(stage) }
}

const measure = async (/** @type {Options} */ options) => {
  // Quick must end within two minutes on two cores; a full run takes about 15 minutes there.
  const limitMs = options.quick ? 170_000 : 3_600_000
  const { repetitions, faults, twice, surroundings } = await withStage({ limitMs, say, sessions: options.sessions }, async (stage) => {
    const before = await readSurroundings(stage)
    return { ...(await measureAll(stage, options)), surroundings: before }
  })
  const cells = medianCells(repetitions)
  const ours = /** @type {const} */ (['curfew', 'curfew-postgres']).filter((name) => options.variants.includes(name))
  const judged = Object.fromEntries(ours.map((name) => [name, [...judgeRatios(repetitions, name), ...(name === 'curfew' ? judgeFaults(faults) : [])]]))
  const costs = Object.fromEntries(ours.map((name) => [name, costByLoad(repetitions, name)]))
  const problems = [
    ...repetitions.flat().flatMap(({ variant, connections, truth }) => (truth?.problems ?? []).map((problem) => `${variant} at ${connections}: ${problem}`)),
    ...faults.flatMap(({ kind, truth }) => truth.problems.map((problem) => `Redis ${kind}: ${problem}`)),
    ...(twice > 0 ? [`${twice} sessions have two terminal events`] : []),
  ]
  tell(['', `Medians of ${repetitions.length}, ${options.seconds} s each; load by ${loadGenerator}; commit ${surroundings.commit.slice(0, 10)}${surroundings.changed.length > 0 ? ' with changes' : ''}`, ''])
  tell([...renderLegend(), '', ...renderCells(cells)])
  if (!usageKnown) tell(['This is not Linux: processor seconds are not known and shown as 0.', ''])
  tell(renderFaults(faults))
  for (const name of ours) {
    tell(['', `Goals, ${name}`, ...renderGoals(judged[name] ?? [])])
    const { costs: byLoad, falls } = costs[name] ?? { costs: [], falls: false }
    tell([`CPU seconds per 1,000 requests, all processes: ${byLoad.map(({ connections, seconds }) => `${seconds.toFixed(3)} at ${connections}`).join(', ')}: ${falls ? 'falls' : 'DOES NOT FALL'} as load grows`])
  }
  tell(['', problems.length === 0 ? 'Every answer was true: each 200 a committed termination with one event, and no request failed.' : 'NOT TRUE:', ...problems])
  const result = { date: new Date().toISOString(), options, ...surroundings, medians: cells, goals: judged, costs, faults, problems }
  writeResult(options, { result, full: { ...result, repetitions }, svg: plot(cells, `Requests per second, medians of ${repetitions.length}, commit ${surroundings.commit.slice(0, 10)}`) })
  return problems.length === 0
}

/** The result by date, and as the summary where that is asked for: without the single repetitions. */
const writeResult = (/** @type {Options} */ options, /** @type {{ result: object, full: object, svg?: string }} */ { result, full, svg }) => {
  mkdirSync(resultsFolder, { recursive: true })
  const write = (/** @type {string} */ name, /** @type {object} */ content) => {
    const base = join(resultsFolder, name)
    writeFileSync(`${base}.json`, `${JSON.stringify(content, null, 1)}\n`)
    writeFileSync(`${base}.txt`, `${said.join('\n').trim()}\n`)
    if (svg !== undefined) writeFileSync(`${base}.svg`, svg)
  }
  const name = `${options.mode}-${new Date().toISOString().slice(0, 19).replaceAll(':', '')}`
  write(name, full)
  if (options.save) write('summary', result)
  say(`\nWritten: bench/results/${name}.json, .txt${svg === undefined ? '' : ', .svg'}${options.save ? ' and summary.*' : ''}`)
}

const productOf = (/** @type {Options} */ options) =>
  options.backend === 'postgres' || redisBinary === null ? /** @type {const} */ ('curfew-postgres') : /** @type {const} */ ('curfew')

const soakAll = async (/** @type {Options} */ options) => {
  const settings = { MAX_TOKEN_LIFETIME: String(SOAK_LIFETIME_SECONDS) }
  const { result, surroundings } = await withStage({ limitMs: 1_800_000, say, sessions: options.sessions, lifetimeSeconds: SOAK_LIFETIME_SECONDS, settings }, async (stage) => {
    const before = await readSurroundings(stage)
    return { result: await soak(stage, { name: productOf(options), say, slices: options.repetitions, sliceSeconds: options.seconds }), surroundings: before }
  })
  tell(['', `${result.name}, ${result.connections} connections for ${result.seconds} s, commit ${surroundings.commit.slice(0, 10)}`, ...renderSoak(result)])
  writeResult({ ...options, save: false }, { result: {}, full: { date: new Date().toISOString(), ...surroundings, ...result } })
  return result.problems.length === 0 && result.judged.every(({ flat }) => flat)
}

const profileAll = async (/** @type {Options} */ options) => {
  const { results, surroundings } = await withStage({ limitMs: 1_800_000, say, sessions: options.sessions }, async (stage) => {
    const before = await readSurroundings(stage)
    const profiled = []
    for (const connections of options.connections) {
      profiled.push(await profile(stage, { name: productOf(options), connections, seconds: options.seconds, folder: resultsFolder }))
      await clean(stage)
    }
    return { results: profiled, surroundings: before }
  })
  for (const result of results) tell(['', ...renderProfile(result)])
  writeResult({ ...options, save: false }, { result: {}, full: { date: new Date().toISOString(), ...surroundings, results } })
  return true
}

try {
  const options = readOptions(process.argv.slice(2))
  const modes = { measure, soak: soakAll, profile: profileAll }
  process.exitCode = (await modes[options.mode](options)) ? 0 : 1
} catch (error) {
  process.stderr.write(`${error instanceof UsageError ? error.message : error instanceof Error ? error.stack : error}\n`)
  process.exitCode = error instanceof UsageError ? 2 : 1
}
// Nothing is left to do; a handle that someone forgot must not keep the run.
process.exit()
