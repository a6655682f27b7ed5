/**
 * What handing on costs, side by side: the product's worker and the bare loop tell the same healthy receivers; the product
 * tells them with and without as many that hang; and a large backlog, with the worker's memory.
 *
 * Deliveries are written due into Postgres, and found there by the worker's upkeep. Rates are the receivers': from
 * the first request that they saw to the last.
 */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { outputOf, startChild } from '../child.mjs'
import { residentBytes } from '../usage.mjs'

/**
 * @typedef {import('../stage.mjs').Stage} Stage
 * @typedef {'RS256' | 'ES256'} Alg
 * @typedef {Awaited<ReturnType<typeof startReceivers>>} Receivers
 * @typedef {{ healthy: number, each: number, warmUpEach: number, backlog: { receivers: number, deliveries: number } }} Size
 */

const script = (/** @type {string} */ name) => fileURLToPath(new URL(name, import.meta.url))
const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url))
/** The product's own default. */
const AT_ONCE = 64
const WITHIN_MS = 300_000
/** Due for each hanging receiver: more than can be tried meanwhile. */
const HANGING_EACH = 200
const CLIENT = 'app'
/** Without it V8 lets garbage gather for as long as it pleases; with it only what is really held can grow, or the worker dies. */
const SMALL_HEAP = '--max-old-space-size=96'
let starts = 0

const startReceivers = async (/** @type {Stage} */ { folder }, /** @type {{ healthy: number, hanging: number }} */ { healthy, hanging }) => {
  starts += 1
  const child = startChild({ command: process.execPath, parameters: [script('receivers.mjs'), String(healthy), String(hanging)], log: join(folder, `receivers-${starts}.log`) })
  const find = (/** @type {string} */ output) => (output.includes('\n') ? /** @type {{ control: string, healthy: string[], hanging: string[] }} */ (JSON.parse(output)) : null)
  const urls = await outputOf(child, { what: 'receivers', withinMs: 10_000, find })
  const ask = async (/** @type {string} */ path) =>
    /** @type {{ requests: number, repeated: number, seconds: number }} */ (await (await fetch(`${urls.control}${path}`)).json())
  return { ...urls, seen: () => ask('/'), reset: () => ask('/reset'), stop: () => child.end() }
}

/** @param {Stage} stage @param {readonly string[]} [nodeOptions] */
const startWorker = async ({ folder, settings, redis }, nodeOptions = []) => {
  starts += 1
  const env = {
    ...settings, ROLES: 'worker', ALLOW_PRIVATE_RECEIVERS: '127.0.0.0/8', DELIVERY_CONCURRENCY: String(AT_ONCE),
    ...(redis === null ? {} : { REDIS_URL: redis.url }),
  }
  const child = startChild({ command: process.execPath, parameters: [...nodeOptions, cli, 'serve'], env, log: join(folder, `deliveries-${starts}.log`) })
  await outputOf(child, { what: 'curfew (worker)', withinMs: 30_000, find: (output) => (output.includes('"service.started"') ? true : null) })
  return child
}

const register = async (/** @type {Stage} */ { postgres, issuer }, /** @type {{ prefix: string, urls: readonly string[], alg: Alg }} */ { prefix, urls, alg }) => {
  for (const [at, url] of urls.entries()) {
    await postgres.sql.query(
      `INSERT INTO receivers (id, type, url, issuer, client_id, alg) VALUES ($1, 'backchannel_logout', $2, $3, $4, $5)`,
      [`${prefix}-${at}`, `${url}/logout`, issuer.url, CLIENT, alg])
  }
}

/** So many deliveries due for each receiver of the prefix. */
const plan = (/** @type {Stage} */ { postgres, issuer }, /** @type {{ prefix: string, each: number, name: string }} */ { prefix, each, name }) =>
  postgres.sql.query(
    `INSERT INTO deliveries (receiver_id, session_id, client_id, sid, sub, issuer, moot_at)
     SELECT r.id, $2 || n, $4, $2 || n, 'user', $5, now() + interval '1 d' FROM receivers r, generate_series(1, $3::int) n WHERE r.id LIKE $1 || '-%'`,
    [prefix, name, each, CLIENT, issuer.url])

const empty = async (/** @type {Stage} */ { postgres, redis }) => {
  await postgres.sql.query('TRUNCATE deliveries, receivers')
  await redis?.client.flushall('SYNC')
}

/** Waits until the receivers have seen so many, and calls back meanwhile. */
const waitFor = async (/** @type {Receivers} */ receivers, /** @type {number} */ count, onLook = (/** @type {number} */ _requests) => {}) => {
  for (const until = performance.now() + WITHIN_MS; ; await sleep(100)) {
    const seen = await receivers.seen()
    onLook(seen.requests)
    if (seen.requests >= count) return seen
    if (performance.now() > until) throw new Error(`Only ${seen.requests} of ${count} deliveries within ${WITHIN_MS / 1_000} s`)
  }
}

const waitForAcknowledged = async (/** @type {Stage} */ { postgres }, /** @type {{ prefix: string, count: number }} */ { prefix, count }) => {
  for (const until = performance.now() + 30_000; ; await sleep(100)) {
    const { rows: [row] } = await postgres.sql.query(
      `SELECT count(*)::int AS count FROM deliveries WHERE state = 'acknowledged' AND attempts = 1 AND receiver_id LIKE $1 || '-%'`, [prefix])
    if (row.count === count) return
    if (performance.now() > until) throw new Error(`Only ${row.count} of ${count} deliveries are recorded as acknowledged at the first attempt`)
  }
}

const rateOf = (/** @type {{ requests: number, repeated: number, seconds: number }} */ { requests, repeated, seconds }, /** @type {number} */ count) => {
  if (requests !== count || repeated > 0) throw new Error(`${requests} requests for ${count} deliveries, ${repeated} with a token sent before`)
  return requests / seconds
}

/**
 * The product's worker: deliveries per second to healthy receivers, with so many hanging ones beside them.
 *
 * @param {Stage} stage
 * @param {{ alg: Alg, size: Size, hanging: number }} what
 */
const measureOurs = async (stage, { alg, size, hanging }) => {
  const { healthy, each, warmUpEach } = size
  const receivers = await startReceivers(stage, { healthy, hanging })
  await register(stage, { prefix: 'healthy', urls: receivers.healthy, alg })
  await register(stage, { prefix: 'hanging', urls: receivers.hanging, alg })
  await plan(stage, { prefix: 'hanging', each: HANGING_EACH, name: 'h' })
  await plan(stage, { prefix: 'healthy', each: warmUpEach, name: 'w' })
  const worker = await startWorker(stage)
  await waitFor(receivers, healthy * warmUpEach)
  await waitForAcknowledged(stage, { prefix: 'healthy', count: healthy * warmUpEach })
  await receivers.reset()
  await plan(stage, { prefix: 'healthy', each, name: 'm' })
  const seen = await waitFor(receivers, healthy * each)
  await waitForAcknowledged(stage, { prefix: 'healthy', count: healthy * (warmUpEach + each) })
  await worker.end()
  await receivers.stop()
  await empty(stage)
  return rateOf(seen, healthy * each)
}

/** @param {Stage} stage @param {{ alg: Alg, size: Size }} what */
const measureBare = async (stage, { alg, size: { healthy, each, warmUpEach } }) => {
  const receivers = await startReceivers(stage, { healthy, hanging: 0 })
  starts += 1
  const parameters = [script('bare.mjs'), receivers.control, receivers.healthy.join(','), alg, String(healthy * warmUpEach), String(healthy * each), String(AT_ONCE)]
  const child = startChild({ command: process.execPath, parameters, log: join(stage.folder, `bare-${starts}.log`) })
  for (const until = performance.now() + WITHIN_MS; !child.gone() && performance.now() < until;) await sleep(50)
  const seen = await receivers.seen()
  if (!(await child.end())) throw new Error(`The bare loop failed:\n${child.output().slice(-2_000)}`)
  await receivers.stop()
  return rateOf(seen, healthy * each)
}

/**
 * A backlog over many receivers: deliveries per second, and the worker's memory on the way.
 *
 * @param {Stage} stage
 * @param {{ size: Size }} what
 */
const measureBacklog = async (stage, { size: { backlog } }) => {
  const receivers = await startReceivers(stage, { healthy: backlog.receivers, hanging: 0 })
  await register(stage, { prefix: 'healthy', urls: receivers.healthy, alg: 'ES256' })
  await plan(stage, { prefix: 'healthy', each: backlog.deliveries / backlog.receivers, name: 'b' })
  const worker = await startWorker(stage, [SMALL_HEAP])
  /** @type {{ done: number, megabytes: number }[]} */
  const samples = []
  const seen = await waitFor(receivers, backlog.deliveries, (requests) => {
    if (requests > 0) samples.push({ done: requests / backlog.deliveries, megabytes: residentBytes(worker.pid) / 2 ** 20 })
  })
  await waitForAcknowledged(stage, { prefix: 'healthy', count: backlog.deliveries })
  await worker.end()
  await receivers.stop()
  await empty(stage)
  const mostWithin = (/** @type {number} */ from, /** @type {number} */ to) =>
    Math.max(...samples.filter(({ done }) => done > from && done <= to).map(({ megabytes }) => megabytes))
  return { ...backlog, perSecond: rateOf(seen, backlog.deliveries), megabytes: { secondQuarter: mostWithin(0.25, 0.5), lastQuarter: mostWithin(0.75, 1), most: mostWithin(0, 1) } }
}

/**
 * @param {Stage} stage
 * @param {{ repetitions: number, size: Size, say: (line: string) => void }} options
 */
export const measureDeliveries = async (stage, { repetitions, size, say }) => {
  const cells = []
  for (let repetition = 0; repetition < repetitions; repetition += 1) {
    say(`\nRepetition ${repetition + 1} of ${repetitions}`)
    const runs = /** @type {const} */ ([
      ['bare RS256', () => measureBare(stage, { alg: 'RS256', size })],
      ['ours RS256', () => measureOurs(stage, { alg: 'RS256', size, hanging: 0 })],
      ['bare ES256', () => measureBare(stage, { alg: 'ES256', size })],
      ['ours ES256', () => measureOurs(stage, { alg: 'ES256', size, hanging: 0 })],
      ['ours ES256, as many hanging', () => measureOurs(stage, { alg: 'ES256', size, hanging: size.healthy })],
    ])
    /** @type {Record<string, number>} */
    const cell = {}
    for (const [name, run] of repetition % 2 === 0 ? runs : runs.toReversed()) {
      cell[name] = await run()
      say(`${name.padEnd(30)} ${cell[name].toFixed(0).padStart(6)}/s`)
    }
    cells.push(cell)
  }
  say(`\n${size.backlog.deliveries.toLocaleString('en')} due deliveries over ${size.backlog.receivers} receivers`)
  return { repetitions: cells, backlog: await measureBacklog(stage, { size }) }
}
