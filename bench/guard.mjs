/**
 * Two rows of DESIGN §12: how soon a commit is refused by guards in other processes, over Redis and over HTTP, and how
 * many checks a guard makes. The commit's time is the one in its row, from just before its transaction ends, so the
 * write to disk counts as well.
 */
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { outputOf, startChild } from './child.mjs'
import { median } from './goals.mjs'
import { loadOnce, startVariant, warmUp } from './running.mjs'

/**
 * @typedef {import('./stage.mjs').Stage} Stage
 * @typedef {{ through: string, connections: number, perSecond: number, sessions: number, missed: number, p50Ms: number, p99Ms: number, maxMs: number }} Propagation
 */

const program = fileURLToPath(new URL('guard-child.mjs', import.meta.url))
const env = { PATH: process.env['PATH'] ?? '' }

const quantile = (/** @type {readonly number[]} */ sorted, /** @type {number} */ share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN

/**
 * @param {Stage} stage
 * @param {{ connections: readonly number[], seconds: number, say: (line: string) => void }} options
 */
export const measurePropagation = async (stage, { connections, seconds, say }) => {
  const running = await startVariant(stage, { name: stage.redis === null ? 'curfew-postgres' : 'curfew' })
  await warmUp(stage, running, { leastSeconds: 3 })
  const sources = [
    ...(stage.redis === null ? [] : [{ through: 'Redis', source: { redis: stage.redis.url } }]),
    { through: 'HTTP', source: { url: running.url, token: stage.issuer.readerToken } },
  ]
  /** @type {Propagation[]} */
  const measured = []
  for (const { through, source } of sources) {
    for (const count of connections) {
      const guards = await Promise.all([1, 2].map(async (n) => {
        const child = startChild({ command: process.execPath, parameters: [program, 'follow', JSON.stringify(source)], env, log: join(stage.folder, `guard-${through}-${count}-${n}.log`) })
        await outputOf(child, { what: 'a guard', withinMs: 60_000, find: (output) => /^GUARD.*$/m.exec(output)?.[0] ?? null })
        return child
      }))
      const { rows: [{ last }] } = await stage.postgres.sql.query('SELECT coalesce(max(id), 0)::text AS last FROM commits')
      const { loaded } = await loadOnce(stage, running, { connections: count, seconds })
      // What was answered last has at most this long to arrive; what has not by then is missed.
      await new Promise((resolve) => setTimeout(resolve, 2_000))
      const { rows } = await stage.postgres.sql.query(`SELECT e.session_id AS id, extract(epoch FROM c.committed_at) * 1000 AS at
        FROM commits c JOIN session_events e ON e.commit_id = c.id WHERE c.id > $1`, [last])
      const lags = []
      let missed = 0
      for (const child of guards) {
        await child.end()
        const text = /^LEARNT (.*)$/m.exec(child.output())?.[1] ?? '[]'
        const learnt = new Map(/** @type {[string, number][]} */ (JSON.parse(text)))
        for (const { id, at } of rows) {
          const atMs = learnt.get(id)
          if (atMs === undefined) missed += 1
          else lags.push(atMs - Number(at))
        }
      }
      lags.sort((a, b) => a - b)
      measured.push({ through, connections: count, perSecond: loaded.perSecond, sessions: rows.length, missed, p50Ms: quantile(lags, 0.5), p99Ms: quantile(lags, 0.99), maxMs: lags.at(-1) ?? NaN })
      say(renderPropagation(/** @type {Propagation} */ (measured.at(-1))))
    }
  }
  await running.stop()
  return measured
}

const renderPropagation = (/** @type {Propagation} */ { through, connections, perSecond, sessions, missed, p50Ms, p99Ms, maxMs }) =>
  `${through.padEnd(5)} ${String(connections).padStart(3)} connections, ${perSecond.toFixed(0)}/s: commit → refused by two guards ` +
  `p50 ${p50Ms.toFixed(1)} ms, p99 ${p99Ms.toFixed(1)} ms, max ${maxMs.toFixed(0)} ms; ${missed} of ${2 * sessions} missed`

/** @param {Stage} stage */
export const measureChecks = async (stage) => {
  const child = startChild({ command: process.execPath, parameters: [program, 'checks'], env, log: join(stage.folder, 'guard-checks.log') })
  const text = await outputOf(child, { what: 'the checks', withinMs: 300_000, find: (output) => /^RESULT (.*)$/m.exec(output)?.[1] ?? null })
  const { rounds, tombstones, bytes, heapBytesPerCheck } = JSON.parse(text)
  const guard = median(rounds.map((/** @type {{ guard: number }} */ round) => round.guard))
  const set = median(rounds.map((/** @type {{ set: number }} */ round) => round.set))
  return { guardPerSecond: guard, setPerSecond: set, tombstones, bytesPerTombstone: bytes / tombstones, heapBytesPerCheck }
}

/**
 * @param {{ propagation: readonly Propagation[], checks: Awaited<ReturnType<typeof measureChecks>> }} result
 */
export const renderGuard = ({ propagation, checks }) => [
  ...propagation.map((one) => `${renderPropagation(one)}  (goal: p99 ≤ 50 ms: ${one.p99Ms <= 50 && one.missed === 0 ? 'met' : 'NOT MET'})`),
  `${(checks.guardPerSecond / 1e6).toFixed(1)} M checks per second and core over 100,000 live ids with ${checks.tombstones.toLocaleString('en')} tombstones ` +
    `and 100 rules (goal: ≥ 2 M: ${checks.guardPerSecond >= 2e6 ? 'met' : 'NOT MET'}); a plain Set ${(checks.setPerSecond / 1e6).toFixed(1)} M; ` +
    `${checks.bytesPerTombstone.toFixed(1)} bytes a tombstone; ${checks.heapBytesPerCheck.toFixed(2)} bytes of heap a check`,
]
