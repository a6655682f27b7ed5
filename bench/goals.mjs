/**
 * The goals for one session (DESIGN §12), each judged by the median of its ratio within one repetition.
 */

/**
 * @typedef {import('./measure.mjs').Cell} Cell
 * @typedef {import('./faults.mjs').Fault} Fault
 * @typedef {'curfew' | 'curfew-queued' | 'curfew-postgres'} Ours
 * @typedef {{ figure: string, goal: string, median: number, least: number, most: number, met: boolean, unit: '' | 'ms' }} Judged
 */

export const median = (/** @type {readonly number[]} */ values) => {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const [low = NaN, high = NaN] = [sorted[sorted.length % 2 === 0 ? middle - 1 : middle], sorted[middle]]
  return (low + high) / 2
}

/**
 * @type {readonly { figure: string, of: 'perSecond' | 'p50Ms' | 'p99Ms', against: string, connections: number,
 *   atLeast?: number, atMost?: number }[]}
 */
const ratios = [
  { figure: 'DELETE/s at 512 ÷ one Prisma transaction per request', of: 'perSecond', against: 'prisma', connections: 512, atLeast: 15 },
  { figure: 'DELETE/s at 512 ÷ one pg transaction per request', of: 'perSecond', against: 'pg', connections: 512, atLeast: 7 },
  { figure: 'DELETE/s at 512 ÷ the same commit without a queue', of: 'perSecond', against: 'direct', connections: 512, atLeast: 0.95 },
  { figure: 'DELETE/s at 64 ÷ the same commit without a queue', of: 'perSecond', against: 'direct', connections: 64, atLeast: 0.75 },
  { figure: 'DELETE/s at 512 ÷ a constant answer', of: 'perSecond', against: 'constant', connections: 512, atLeast: 0.4 },
  { figure: 'p50 of one at a time ÷ one Prisma transaction', of: 'p50Ms', against: 'prisma', connections: 1, atMost: 1.1 },
  { figure: 'p50 of one at a time ÷ one pg transaction', of: 'p50Ms', against: 'pg', connections: 1, atMost: 2.5 },
  { figure: 'p99 at 512 ÷ one Prisma transaction per request', of: 'p99Ms', against: 'prisma', connections: 512, atMost: 0.1 },
]

/** @param {readonly Cell[]} cells  Of one repetition. */
const find = (cells, /** @type {string} */ variant, /** @type {number} */ connections) =>
  cells.find((cell) => cell.variant === variant && cell.connections === connections)

/**
 * @param {readonly (readonly Cell[])[]} repetitions
 * @param {Ours} ours
 * @returns {Judged[]}
 */
export const judgeRatios = (repetitions, ours) =>
  ratios.flatMap(({ figure, of, against, connections, atLeast, atMost }) => {
    const values = repetitions.flatMap((cells) => {
      const our = find(cells, ours, connections)
      const their = find(cells, against, connections)
      return our === undefined || their === undefined ? [] : [our[of] / their[of]]
    })
    if (values.length === 0) return []
    const middle = median(values)
    const met = (atLeast === undefined || middle >= atLeast) && (atMost === undefined || middle <= atMost)
    const goal = atLeast === undefined ? `≤ ${atMost}` : `≥ ${atLeast}`
    return [{ figure, goal, median: middle, least: Math.min(...values), most: Math.max(...values), met, unit: '' }]
  })

/**
 * @param {readonly Fault[]} faults
 * @returns {Judged[]}
 */
export const judgeFaults = (faults) =>
  faults.flatMap(({ kind, failed, worstMs, awaySeconds }) => {
    const away = `Redis ${kind} for ${awaySeconds} s`
    const once = (/** @type {number} */ value) => ({ median: value, least: value, most: value })
    return [
      { figure: `requests failed, ${away}`, goal: '0', ...once(failed), met: failed === 0, unit: '' },
      { figure: `worst answer, ${away}`, goal: '≤ 500 ms', ...once(worstMs), met: worstMs <= 500, unit: 'ms' },
    ]
  })

/**
 * Processor seconds per 1,000 requests by connections: they must fall as the load grows.
 *
 * @param {readonly (readonly Cell[])[]} repetitions
 * @param {Ours} ours
 */
export const costByLoad = (repetitions, ours) => {
  const cells = repetitions.flat().filter(({ variant }) => variant === ours)
  const counts = [...new Set(cells.map(({ connections }) => connections))].sort((a, b) => a - b)
  const costs = counts.map((connections) => ({
    connections,
    seconds: median(cells.filter((cell) => cell.connections === connections).map(({ cpu }) => cpu.all)),
  }))
  return { costs, falls: costs.every(({ seconds }, at) => at === 0 || seconds < (costs[at - 1]?.seconds ?? 0)) }
}
