/** The goals for deliveries (DESIGN §12), each judged by the median of its ratio within one repetition. */
import { median } from '../goals.mjs'

/** @typedef {import('../goals.mjs').Judged} Judged */

const ratios = [
  { figure: 'deliveries/s ÷ bare loop, RS256', of: 'ours RS256', against: 'bare RS256', atLeast: 0.85 },
  { figure: 'deliveries/s ÷ bare loop, ES256', of: 'ours ES256', against: 'bare ES256', atLeast: 0.75 },
  { figure: 'deliveries/s with as many hanging receivers ÷ without', of: 'ours ES256, as many hanging', against: 'ours ES256', atLeast: 0.9 },
]

/** What a garbage collector or an allocator may keep without leaking. */
const TOLERATED_MEGABYTES = 24

/**
 * @param {Awaited<ReturnType<typeof import('./measure.mjs').measureDeliveries>>} measured
 * @returns {Judged[]}
 */
export const judgeDeliveries = ({ repetitions, backlog }) => {
  const { secondQuarter, lastQuarter } = backlog.megabytes
  const growth = lastQuarter - secondQuarter
  return [
    ...ratios.map(({ figure, of, against, atLeast }) => {
      const values = repetitions.map((cell) => (cell[of] ?? NaN) / (cell[against] ?? NaN))
      const middle = median(values)
      return { figure, goal: `≥ ${atLeast}`, median: middle, least: Math.min(...values), most: Math.max(...values), met: middle >= atLeast, unit: /** @type {const} */ ('') }
    }),
    {
      figure: 'MB that the worker grew by from the second quarter of a backlog to the last', goal: `≤ ${TOLERATED_MEGABYTES}`,
      median: growth, least: growth, most: growth, met: growth <= TOLERATED_MEGABYTES, unit: '',
    },
  ]
}

/** @param {Awaited<ReturnType<typeof import('./measure.mjs').measureDeliveries>>} measured */
export const renderDeliveries = ({ repetitions, backlog: { receivers, deliveries, perSecond, megabytes } }) => [
  ...Object.keys(repetitions[0] ?? {}).map((name) => `${name.padEnd(30)} ${median(repetitions.map((cell) => cell[name] ?? NaN)).toFixed(0).padStart(6)}/s`),
  `${deliveries.toLocaleString('en')} due deliveries over ${receivers} receivers: ${perSecond.toFixed(0)}/s; worker's memory at most ` +
    `${megabytes.secondQuarter.toFixed(0)} MB in the second quarter, ${megabytes.lastQuarter.toFixed(0)} MB in the last, ${megabytes.most.toFixed(0)} MB ever`,
]
