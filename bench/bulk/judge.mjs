/** The goals for revocations (DESIGN §12), each judged by the median of its ratio within one repetition. */
import { median } from '../goals.mjs'

/**
 * @typedef {import('../goals.mjs').Judged} Judged
 * @typedef {Awaited<ReturnType<typeof import('./measure.mjs').measureBulk>>} MeasuredBulk
 */

/** Keys of a handful of jobs and of the lanes' events; a key for each session would be a hundred times as much. */
const TOLERATED_BYTES = 2 ** 20

/**
 * @param {MeasuredBulk} measured
 * @returns {Judged[]}
 */
export const judgeBulk = ({ repetitions }) => {
  const figure = (/** @type {string} */ name, /** @type {string} */ goal, /** @type {number[]} */ values, /** @type {(median: number) => boolean} */ isMet) =>
    ({ figure: name, goal, median: median(values), least: Math.min(...values), most: Math.max(...values), met: isMet(median(values)), unit: /** @type {const} */ ('') })
  return [
    figure('bulk sessions/s alone ÷ one hand-written statement', '≥ 0.8', repetitions.map(({ hand, alone }) => alone.perSecond / hand), (value) => value >= 0.8),
    figure('interactive p99 beside a bulk ÷ idle p99 at the same rate', '≤ 2', repetitions.map(({ beside }) => beside.ratio), (value) => value <= 2),
    figure('MB that the queue grew by in Redis while it ran', '≤ 1', repetitions.map(({ alone }) => (alone.queueBytes.most - alone.queueBytes.before) / 2 ** 20),
      (value) => value <= TOLERATED_BYTES / 2 ** 20),
  ]
}

/** @param {MeasuredBulk} measured */
export const renderBulk = ({ repetitions, warnings }) => {
  const middle = (/** @type {(cell: MeasuredBulk['repetitions'][number]) => number} */ of) => median(repetitions.map(of))
  return [
    `by hand                        ${middle(({ hand }) => hand).toFixed(0).padStart(7)} sessions/s`,
    `Curfew alone                   ${middle(({ alone }) => alone.perSecond).toFixed(0).padStart(7)} sessions/s`,
    `from request to answer ${middle(({ alone }) => alone.answeredMs).toFixed(0)} ms (contained by ${repetitions[0]?.alone.containment}), to the last ended ` +
      `${middle(({ alone }) => alone.ended).toFixed(1)} s, committed and proven ${middle(({ alone }) => alone.committed).toFixed(1)} s, enforced ${middle(({ alone }) => alone.enforced).toFixed(1)} s`,
    `log-outs beside it: p99 ${middle(({ beside }) => beside.during.p99Ms).toFixed(1)} ms at ${middle(({ beside }) => beside.during.perSecond).toFixed(0)}/s; without it ` +
      `${middle(({ beside }) => median([beside.before.p99Ms, beside.after.p99Ms])).toFixed(1)} ms at ${middle(({ beside }) => median([beside.before.perSecond, beside.after.perSecond])).toFixed(0)}/s; ` +
      `meanwhile ${middle(({ beside }) => beside.endedPerSecond).toFixed(0)} sessions/s were ended`,
    ...Object.entries(warnings).map(([event, times]) => `warned: ${event}, ${times} times`),
  ]
}
