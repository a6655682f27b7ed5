/** The result for a person: a table of medians, bars, and each goal with "met" or "not met". */
import { median } from './goals.mjs'
import { usageKnown } from './usage.mjs'
import { variants } from './variants.mjs'

/**
 * @typedef {import('./measure.mjs').Cell} Cell
 * @typedef {import('./faults.mjs').Fault} Fault
 * @typedef {import('./goals.mjs').Judged} Judged
 * @typedef {import('./side-by-side.mjs').Concluded} Concluded
 * @typedef {import('./variants.mjs').VariantName} VariantName
 * @typedef {ReturnType<typeof medianCells>[number]} MedianCell
 */

/** @param {readonly (readonly Cell[])[]} repetitions */
export const medianCells = (repetitions) => {
  const all = repetitions.flat()
  const keys = [...new Set(all.map(({ variant, connections }) => `${variant} ${connections}`))]
  return keys.map((key) => {
    const cells = all.filter(({ variant, connections }) => key === `${variant} ${connections}`)
    const of = (/** @type {(cell: Cell) => number} */ pick) => median(cells.map(pick))
    const [{ variant, connections } = { variant: /** @type {VariantName} */ ('constant'), connections: 0 }] = cells
    return {
      variant,
      connections,
      perSecond: of((cell) => cell.perSecond),
      p50Ms: of((cell) => cell.p50Ms),
      p99Ms: of((cell) => cell.p99Ms),
      cpu: {
        api: of(({ cpu }) => cpu.api),
        worker: of(({ cpu }) => cpu.worker),
        postgres: of(({ cpu }) => cpu.postgres),
        redis: of(({ cpu }) => cpu.redis),
        all: of(({ cpu }) => cpu.all),
        load: of(({ cpu }) => cpu.load),
      },
      redisCommandsPerRequest: of((cell) => cell.redisCommandsPerRequest),
      statementsPerRequest: of((cell) => cell.statementsPerRequest),
      walBytesPerRequest: of((cell) => cell.walBytesPerRequest),
      redisBytes: of((cell) => cell.redisMemory?.usedBytes ?? 0),
      queueBytes: of((cell) => cell.redisMemory?.queueBytes ?? 0),
      failed: cells.reduce((sum, { failed }) => sum + failed, 0),
    }
  })
}

/** Three digits that matter. */
const short = (/** @type {number} */ value) => {
  if (!Number.isFinite(value)) return '–'
  if (value === 0) return '0'
  return value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : value >= 1 ? 2 : 3)
}
const megabytes = (/** @type {number} */ bytes) => short(bytes / 2 ** 20)
const percent = (/** @type {number} */ share) => `${(share * 100).toFixed(1)} %`.padStart(7)

const table = (/** @type {readonly (readonly string[])[]} */ rows) => {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length)))
  const pad = (/** @type {string} */ text, /** @type {number} */ column) =>
    column === 0 ? text.padEnd(widths[column] ?? 0) : text.padStart(widths[column] ?? 0)
  return rows.map((row) => row.map(pad).join('  ').trimEnd())
}

const BAR = 40

const bars = (/** @type {readonly MedianCell[]} */ cells) => {
  const most = Math.max(...cells.map(({ perSecond }) => perSecond))
  const bar = (/** @type {number} */ value) => ` ${'█'.repeat(Math.max(1, Math.round((value / most) * BAR)))}`.padEnd(BAR + 1)
  return table(cells.map(({ variant, perSecond }) => [variant, short(perSecond), bar(perSecond)]))
}

/** @type {readonly [head: string, cell: (cell: MedianCell) => string][]} */
const columns = [
  ['', ({ variant }) => variant],
  ['req/s', ({ perSecond }) => short(perSecond)],
  ['p50 ms', ({ p50Ms }) => short(p50Ms)],
  ['p99 ms', ({ p99Ms }) => short(p99Ms)],
  ['CPU s/1,000:', ({ cpu }) => short(cpu.all)],
  ['api', ({ cpu }) => short(cpu.api)],
  ['worker', ({ cpu }) => short(cpu.worker)],
  ['postgres', ({ cpu }) => short(cpu.postgres)],
  ['redis', ({ cpu }) => short(cpu.redis)],
  ['(load)', ({ cpu }) => short(cpu.load)],
  ['Redis cmds', ({ redisCommandsPerRequest }) => short(redisCommandsPerRequest)],
  ['PG stmts', ({ statementsPerRequest }) => short(statementsPerRequest)],
  ['WAL B', ({ walBytesPerRequest }) => short(walBytesPerRequest)],
  ['Redis MB', ({ redisBytes }) => megabytes(redisBytes)],
  ['queue MB', ({ queueBytes }) => megabytes(queueBytes)],
  ['failed', ({ failed }) => String(failed)],
]

/** @param {readonly MedianCell[]} cells */
const renderCells = (cells) =>
  [...new Set(cells.map(({ connections }) => connections))].flatMap((connections) => {
    const here = cells.filter((cell) => cell.connections === connections)
    const rows = here.map((cell) => columns.map(([, text]) => text(cell)))
    const title = `${connections} ${connections === 1 ? 'connection' : 'connections'}`
    return [title, ...table([columns.map(([head]) => head), ...rows]), '', ...bars(here), '']
  })

/** @param {readonly Judged[]} goals */
export const renderGoals = (goals) =>
  table([
    ['figure', 'goal', 'median', 'least … most', ''],
    ...goals.map(({ figure, goal, median: middle, least, most, met, unit }) => {
      const range = least === most ? '' : `${short(least)} … ${short(most)}`
      return [figure, goal, `${short(middle)} ${unit}`.trimEnd(), range, met ? 'met' : 'NOT MET']
    }),
  ])

/** @param {Fault} fault */
const renderFault = ({ kind, awaySeconds, beforeSeconds, worstMs, failed, bySecond, unenforcedSessions, caughtUpSeconds, warnings }) => [
  `Redis ${kind} for ${awaySeconds} s, from second ${beforeSeconds}: worst answer ${short(worstMs)} ms, ${failed} failed`,
  `  200s by second: ${bySecond.join(' ')}`,
  `  caches untold of ${unenforcedSessions} sessions when the load ended, ` +
    (caughtUpSeconds === null ? 'NOT told in time' : `told ${short(caughtUpSeconds)} s later`),
  ...Object.entries(warnings).map(([event, times]) => `  logged ${times} times: ${event}`),
]

/** @param {Concluded['products'][number]} product */
const renderProduct = ({ name, goals, cost }) => [
  '',
  `Goals, ${name}`,
  ...renderGoals(goals),
  `CPU seconds per 1,000 requests, all processes: ${cost.costs.map(({ connections, seconds }) => `${short(seconds)} at ${connections}`).join(', ')}` +
    `: ${cost.falls ? 'falls' : 'DOES NOT FALL'} as load grows`,
]

/** @param {{ title: string, medians: readonly MedianCell[], faults: readonly Fault[] } & Concluded} result */
export const renderSideBySide = ({ title, medians, faults, products, problems }) => [
  '',
  `${title[0]?.toUpperCase()}${title.slice(1)}`,
  '',
  ...Object.entries(variants).map(([name, { says }]) => `${name.padEnd(16)} ${says}`),
  '',
  ...renderCells(medians),
  ...(usageKnown ? [] : ['This is not Linux: processor seconds are not known and shown as 0.', '']),
  ...faults.flatMap(renderFault),
  ...products.flatMap(renderProduct),
  '',
  ...(problems.length === 0
    ? ['Every answer was true: each 200 a committed termination with one event, and no request failed.']
    : ['NOT TRUE:', ...problems]),
]

/** @param {Awaited<ReturnType<typeof import('./soak.mjs').soak>>} result */
export const renderSoak = ({ judged, problems }) => {
  const amount = (/** @type {string} */ part, /** @type {number} */ value) =>
    part.endsWith('Bytes') ? `${megabytes(value)} MB` : String(value)
  const rows = judged.map(({ part, early, late, flat }) => [part, amount(part, early), amount(part, late), flat ? 'flat' : 'GROWS'])
  return [...table([['', 'second quarter', 'last quarter', ''], ...rows]), ...problems.map((problem) => `UNTRUE: ${problem}`)]
}

/** @param {Awaited<ReturnType<typeof import('./profile.mjs').profile>>} result */
export const renderProfile = ({ name, connections, perSecond, processes, topStatements, answered }) => [
  `${name} at ${connections} connections: ${short(perSecond)}/s while profiled`,
  ...processes.flatMap(({ role, busySeconds, ofSeconds, places, functions }) => [
    '',
    `${role}: busy for ${busySeconds.toFixed(1)} of ${ofSeconds.toFixed(1)} s`,
    ...places.map(({ name: place, share }) => `  ${percent(share)}  ${place}`),
    '  by function',
    ...functions.map(({ name: text, share }) => `  ${percent(share)}  ${text}`),
  ]),
  '',
  'Postgres, by time',
  ...topStatements.map(({ query, calls, totalMs, meanMs }) =>
    `  ${short(totalMs).padStart(7)} ms  ${short(calls / answered)} a request, ${short(meanMs)} ms each  ${query}`),
]
