/**
 * The measurement itself: every variant at every number of connections, in interleaved repetitions, then Redis frozen
 * and gone; and what is concluded from it.
 */
import { measureFault } from './faults.mjs'
import { costByLoad, judgeFaults, judgeRatios } from './goals.mjs'
import { measureVariant } from './measure.mjs'
import { redisBinary } from './redis-server.mjs'
import { say } from './results.mjs'
import { sessionsWithTwoEvents } from './truth.mjs'
import { variants } from './variants.mjs'

/**
 * @typedef {import('./stage.mjs').Stage} Stage
 * @typedef {import('./options.mjs').Options} Options
 * @typedef {import('./measure.mjs').Cell} Cell
 * @typedef {Awaited<ReturnType<typeof measureSideBySide>>} Measured
 * @typedef {ReturnType<typeof conclude>} Concluded
 */

const pacing = {
  quick: { warmUpSeconds: 1, settleSeconds: 0, fault: { beforeSeconds: 1, afterSeconds: 2, catchUpSeconds: 5 } },
  full: { warmUpSeconds: 3, settleSeconds: 1, fault: { beforeSeconds: 5, afterSeconds: 10, catchUpSeconds: 30 } },
}

/** Without Redis the one without a queue can still run: it then tells no caches, like the product without Redis. */
const chosenVariants = (/** @type {Options} */ { variants: asked }) => {
  const names = asked.filter((name) => redisBinary !== null || !variants[name].redis || name === 'direct')
  for (const name of asked) if (!names.includes(name)) say(`Left out, because there is no redis-server: ${name}`)
  return names
}

const sayCell = (/** @type {Cell} */ { variant, connections, perSecond, p50Ms, p99Ms, truth, warnings }) => {
  const rate = `${perSecond.toFixed(0).padStart(6)}/s`
  say(`${variant.padEnd(16)} ${String(connections).padStart(4)}  ${rate}  p50 ${p50Ms.toFixed(1)} ms  p99 ${p99Ms.toFixed(1)} ms`)
  for (const [event, times] of Object.entries(warnings)) say(`  logged ${times} times: ${event}`)
  for (const problem of truth?.problems ?? []) say(`  UNTRUE: ${problem}`)
}

/**
 * @param {Stage} stage
 * @param {Options} options
 */
export const measureSideBySide = async (stage, options) => {
  const { quick, connections, seconds } = options
  const { warmUpSeconds, settleSeconds, fault } = pacing[quick ? 'quick' : 'full']
  const names = chosenVariants(options)
  const repetitions = []
  for (let repetition = 0; repetition < options.repetitions; repetition += 1) {
    say(`\nRepetition ${repetition + 1} of ${options.repetitions}`)
    const cells = []
    for (const name of repetition % 2 === 0 ? names : names.toReversed()) {
      const pace = { connections, seconds, warmUpSeconds, settleSeconds }
      cells.push(...(await measureVariant(stage, { name, ...pace, onCell: sayCell })))
    }
    repetitions.push(cells)
  }
  const faults = []
  for (const kind of options.faults && names.includes('curfew') ? /** @type {const} */ (['frozen', 'gone']) : []) {
    say(`\nRedis ${kind}`)
    faults.push(await measureFault(stage, { kind, ...fault }))
  }
  return { repetitions, faults, twice: await sessionsWithTwoEvents(stage) }
}

/**
 * Goals and truth. A goal that is not met is a finding; an answer that is not true is a failure of the run.
 *
 * @param {Measured} measured
 */
export const conclude = ({ repetitions, faults, twice }) => {
  const measured = /** @type {const} */ (['curfew', 'curfew-queued', 'curfew-postgres']).filter((name) => repetitions[0]?.some(({ variant }) => variant === name))
  const products = measured.map((name) => ({
    name,
    goals: [...judgeRatios(repetitions, name), ...(name === 'curfew' ? judgeFaults(faults) : [])],
    cost: costByLoad(repetitions, name),
  }))
  const problems = [
    ...repetitions.flat().flatMap(({ variant, connections, truth }) =>
      (truth?.problems ?? []).map((problem) => `${variant} at ${connections}: ${problem}`)),
    ...faults.flatMap(({ kind, truth }) => truth.problems.map((problem) => `Redis ${kind}: ${problem}`)),
    ...(twice > 0 ? [`${twice} sessions have two terminal events`] : []),
  ]
  return { products, problems }
}
