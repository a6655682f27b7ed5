/** The result for a person: a table of medians, bars, and each goal with "met" or "not met". */
import { median } from './goals.mjs'
import { variants } from './variants.mjs'

/**
 * @typedef {import('./measure.mjs').Cell} Cell
 * @typedef {import('./goals.mjs').Judged} Judged
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
        api: of(({ cpu }) => cpu.api), worker: of(({ cpu }) => cpu.worker), postgres: of(({ cpu }) => cpu.postgres),
        redis: of(({ cpu }) => cpu.redis), all: of(({ cpu }) => cpu.all), load: of(({ cpu }) => cpu.load),
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
const short = (/** @type {number} */ value) =>
  !Number.isFinite(value) ? '–' : value === 0 ? '0' : value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(value >= 1 ? 2 : 3)
const megabytes = (/** @type {number} */ bytes) => short(bytes / 2 ** 20)

const table = (/** @type {readonly (readonly string[])[]} */ rows) => {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length)))
  return rows.map((row) => row.map((text, column) => (column === 0 ? text.padEnd(widths[column] ?? 0) : text.padStart(widths[column] ?? 0))).join('  ').trimEnd())
}

const BAR = 40

const bars = (/** @type {readonly MedianCell[]} */ cells) => {
  const most = Math.max(...cells.map(({ perSecond }) => perSecond))
  return table(cells.map(({ variant, perSecond }) => [variant, short(perSecond), ` ${'█'.repeat(Math.max(1, Math.round((perSecond / most) * BAR))).padEnd(BAR)}`]))
}

/** @param {readonly MedianCell[]} cells */
export const renderCells = (cells) => {
  const head = ['', 'req/s', 'p50 ms', 'p99 ms', 'CPU s/1,000:', 'api', 'worker', 'postgres', 'redis', 'load', 'Redis cmds', 'PG stmts', 'WAL B', 'Redis MB', 'queue MB', 'failed']
  return [...new Set(cells.map(({ connections }) => connections))].flatMap((connections) => {
    const here = cells.filter((cell) => cell.connections === connections)
    const rows = here.map((cell) => [
      cell.variant, short(cell.perSecond), short(cell.p50Ms), short(cell.p99Ms), short(cell.cpu.all), short(cell.cpu.api), short(cell.cpu.worker),
      short(cell.cpu.postgres), short(cell.cpu.redis), short(cell.cpu.load), short(cell.redisCommandsPerRequest), short(cell.statementsPerRequest),
      short(cell.walBytesPerRequest), megabytes(cell.redisBytes), megabytes(cell.queueBytes), String(cell.failed),
    ])
    return [`${connections} ${connections === 1 ? 'connection' : 'connections'}`, ...table([head, ...rows]), '', ...bars(here), '']
  })
}

/** @param {readonly Judged[]} judged */
export const renderGoals = (judged) =>
  table([
    ['figure', 'goal', 'median', 'least … most', ''],
    ...judged.map(({ figure, goal, median: middle, least, most, met, unit }) => [
      figure, goal, `${short(middle)}${unit === '' ? '' : ` ${unit}`}`, least === most ? '' : `${short(least)} … ${short(most)}`, met ? 'met' : 'NOT MET',
    ]),
  ])

export const renderLegend = () => table(Object.entries(variants).map(([name, { says }]) => [name, says]).map(([name = '', says = '']) => [name.padEnd(16) + says]))

/** @param {readonly import('./faults.mjs').Fault[]} faults */
export const renderFaults = (faults) =>
  faults.flatMap(({ kind, worstMs, failed, bySecond, beforeSeconds, awaySeconds, unenforcedSessions, caughtUpSeconds, warnings }) => [
    `Redis ${kind} for ${awaySeconds} s at second ${beforeSeconds}: worst answer ${short(worstMs)} ms, ${failed} failed; ` +
      `caches untold of ${unenforcedSessions} sessions when the load ended, ${caughtUpSeconds === null ? 'NOT told in time' : `told ${short(caughtUpSeconds)} s later`}`,
    `  200s by second: ${bySecond.join(' ')}`,
    ...Object.entries(warnings).map(([event, times]) => `  logged ${times} times: ${event}`),
  ])

/** @param {Awaited<ReturnType<typeof import('./soak.mjs').soak>>} result */
export const renderSoak = ({ judged, problems }) => [
  ...table([['', 'second quarter', 'last quarter', ''], ...judged.map(({ part, early, late, flat }) => {
    const amount = (/** @type {number} */ value) => (part.endsWith('Bytes') ? `${megabytes(value)} MB` : String(value))
    return [part, amount(early), amount(late), flat ? 'flat' : 'GROWS']
  })]),
  ...problems.map((problem) => `UNTRUE: ${problem}`),
]

/** @param {Awaited<ReturnType<typeof import('./profile.mjs').profile>>} result */
export const renderProfile = ({ name, connections, perSecond, processes, topStatements, answered }) => {
  const percent = (/** @type {number} */ share) => `${(share * 100).toFixed(1)} %`
  return [
    `${name} at ${connections} connections: ${short(perSecond)}/s while profiled`,
    ...processes.flatMap(({ role, busySeconds, ofSeconds, places, functions }) => [
      '', `${role}: busy for ${busySeconds.toFixed(1)} of ${ofSeconds.toFixed(1)} s`,
      ...places.map(({ name: place, share }) => `  ${percent(share).padStart(7)}  ${place}`),
      '  by function',
      ...functions.map(({ name: text, share }) => `  ${percent(share).padStart(7)}  ${text}`),
    ]),
    '', 'Postgres, by time',
    ...topStatements.map((/** @type {any} */ { query, calls, totalMs, meanMs }) => `  ${short(totalMs).padStart(7)} ms  ${short(calls / answered)} a request, ${short(meanMs)} ms each  ${query}`),
  ]
}
