/**
 * Where the processor's time goes: V8 CPU profiles of the product's processes under load, summed up by function and
 * by package; and Postgres' log with the plans of its slow statements. Both are kept beside the result.
 */
import { copyFileSync, mkdirSync, readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { readPostgresCounters, resetPostgresCounters } from './counters.mjs'
import { clean, loadOnce, startVariant, warmUp } from './running.mjs'

/** @typedef {import('./stage.mjs').Stage} Stage */

/** Coarse enough to cost little. */
const SAMPLE_EVERY_MICROS = 500
/** A commit of 500 sessions takes longer; what belongs to one session must not. */
const SLOW_STATEMENT_MS = 8

/** `node_modules/<package>`, `dist/<folder>`, `node:<module>` or what V8 calls it. */
const placeOf = (/** @type {string} */ url, /** @type {string} */ functionName) => {
  const name = /node_modules\/((?:@[^/]+\/)?[^/]+)(?!.*node_modules\/)/.exec(url)?.[1]
  if (name !== undefined) return name
  const own = /\/dist\/([^/]+)/.exec(url)?.[1]
  if (own !== undefined) return `curfew ${own}`
  if (url.startsWith('node:')) return url.split('/').slice(0, 2).join('/')
  return functionName
}

/** V8 stamps its samples with the same clock. */
const nowMicros = () => Number(process.hrtime.bigint() / 1_000n)

/**
 * Sums up what was sampled between two times: the load alone, without start and stop.
 *
 * @param {string} file
 * @param {{ fromMicros: number, toMicros: number }} window
 */
const sumUp = (file, { fromMicros, toMicros }) => {
  /**
   * @type {{ startTime: number, samples: number[], timeDeltas: number[],
   *   nodes: { id: number, callFrame: { functionName: string, url: string, lineNumber: number } }[] }}
   */
  const { startTime, nodes, samples, timeDeltas } = JSON.parse(readFileSync(file, 'utf8'))
  const byId = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]))
  /** @type {Map<string, number>} */
  const functions = new Map()
  /** @type {Map<string, number>} */
  const places = new Map()
  let busy = 0
  let at = startTime
  samples.forEach((id, index) => {
    const micros = timeDeltas[index] ?? 0
    at += micros
    const frame = byId.get(id)
    if (frame === undefined || frame.functionName === '(idle)' || at < fromMicros || at > toMicros) return
    const place = placeOf(frame.url, frame.functionName)
    const where = frame.url === '' ? '' : ` ${place} ${frame.url.split('/').at(-1)}:${frame.lineNumber + 1}`
    const name = `${frame.functionName || '(anonymous)'}${where}`
    busy += micros
    functions.set(name, (functions.get(name) ?? 0) + micros)
    places.set(place, (places.get(place) ?? 0) + micros)
  })
  const most = (/** @type {Map<string, number>} */ map, /** @type {number} */ count) =>
    [...map].sort(([, a], [, b]) => b - a).slice(0, count).map(([name, micros]) => ({ name, share: micros / busy }))
  return { busySeconds: busy / 1e6, ofSeconds: (toMicros - fromMicros) / 1e6, places: most(places, 16), functions: most(functions, 25) }
}

/**
 * @param {Stage} stage
 * @param {{ name: import('./variants.mjs').VariantName, connections: number, seconds: number, folder: string }} options
 */
export const profile = async (stage, { name, connections, seconds, folder }) => {
  const kept = join(folder, `profile-${name}-${connections}`)
  mkdirSync(kept, { recursive: true })
  const nodeOptions = ['--cpu-prof', `--cpu-prof-interval=${SAMPLE_EVERY_MICROS}`, `--cpu-prof-dir=${kept}`, '--cpu-prof-name={role}.cpuprofile']
  await stage.postgres.explainSlow(SLOW_STATEMENT_MS)
  const running = await startVariant(stage, { name, nodeOptions })
  await warmUp(stage, running, { leastSeconds: 3 })
  await resetPostgresCounters(stage.postgres.sql)
  const fromMicros = nowMicros()
  const { loaded } = await loadOnce(stage, running, { connections, seconds })
  const toMicros = nowMicros()
  const counted = await readPostgresCounters(stage.postgres.sql)
  await running.stop()
  await clean(stage)
  copyFileSync(stage.postgres.log, join(kept, 'postgres.log'))
  const processes = readdirSync(kept).filter((file) => file.endsWith('.cpuprofile'))
    .map((file) => ({ role: file.replace('.cpuprofile', ''), ...sumUp(join(kept, file), { fromMicros, toMicros }) }))
  return { name, connections, seconds, perSecond: loaded.perSecond, answered: loaded.answered, topStatements: counted.top, processes }
}
