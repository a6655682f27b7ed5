/**
 * What a revocation of many sessions costs: alone, beside one hand-written SQL statement that does the same UPDATE and
 * INSERT; and beside a steady stream of log-outs, whose latencies are compared with those of the same stream alone.
 *
 * Each run ends an organization of its own that was seeded for it, so that none finds what another left.
 */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { outputOf, startChild } from '../child.mjs'
import { readRedisMemory } from '../counters.mjs'
import { median } from '../goals.mjs'
import { clean, startVariant, warmUp } from '../running.mjs'

/**
 * @typedef {import('../stage.mjs').Stage} Stage
 * @typedef {import('../running.mjs').Running} Running
 * @typedef {{ sessions: number, perSecond: number, idleSeconds: number, besideSeconds: number }} Size
 * @typedef {{ perSecond: number, sent: number, failed: number, seconds: number, p50Ms: number, p90Ms: number, p99Ms: number, maxMs: number }} Steady
 */

const program = fileURLToPath(new URL('steady.mjs', import.meta.url))
const WITHIN_MS = 900_000
let starts = 0

// Ids are scattered over the organization's pages, as log-ins of many users at once leave them.
const seed = async (/** @type {Stage} */ { postgres, issuer }, /** @type {string} */ organization, /** @type {number} */ count) => {
  await postgres.sql.query(
    `INSERT INTO sessions (id, issuer, user_id, resource_owner, sequence, token_hash, registration_hash, creator_issuer, creator_subject, fingerprint_id, ip,
       user_agent, born, created_at, change_date, expires_at)
     SELECT $1 || '-' || lpad(((n * 7919::bigint) % $3)::text, 8, '0'), $2, 'user-' || n / 2, $1, 1, sha256(n::text::bytea), 'bench', $2, 'registrar', 'fingerprint-' || n,
       '10.0.0.0'::inet + n, '{"description": "Firefox on Linux"}', at, at, at, at + make_interval(secs => 86400 + n % 86400)
     FROM generate_series(0, $3::int - 1) n, LATERAL (SELECT date_trunc('milliseconds', now()) AS at) a`,
    [organization, issuer.url, count])
  await postgres.sql.query(
    `INSERT INTO session_events (session_id, sequence, type, actor_issuer, actor_subject, resource_owner, created_at)
     SELECT id, 1, 'session.added', creator_issuer, creator_subject, resource_owner, created_at FROM sessions WHERE resource_owner = $1`, [organization])
}

/** What somebody in a hurry would type: no outbox, no cursor, no counts, and every row locked to the end. */
const byHand = async (/** @type {Stage} */ { postgres, issuer }, /** @type {string} */ organization, /** @type {number} */ count) => {
  const since = performance.now()
  const { rowCount } = await postgres.sql.query(
    `WITH ended AS (
       UPDATE sessions SET state = 'terminated', sequence = sequence + 1, change_date = date_trunc('milliseconds', now()), terminated_at = date_trunc('milliseconds', now())
       WHERE resource_owner = $1 AND state = 'active' RETURNING id, sequence, resource_owner, change_date)
     INSERT INTO session_events (session_id, sequence, type, mode, reason, actor_issuer, actor_subject, resource_owner, created_at)
     SELECT id, sequence, 'session.terminated', 'revoke', 'bench', $2, 'responder', resource_owner, change_date FROM ended`, [organization, issuer.url])
  if (rowCount !== count) throw new Error(`The statement ended ${rowCount} of ${count}`)
  return count / ((performance.now() - since) / 1_000)
}

const accept = async (/** @type {Stage} */ { issuer }, /** @type {Running} */ { url }, /** @type {string} */ organization) => {
  const ask = async (/** @type {object} */ change, /** @type {number} */ expected) => {
    const response = await fetch(`${url}/v1/revocations`, {
      method: 'POST', headers: { authorization: `Bearer ${issuer.responderToken}`, 'content-type': 'application/json' },
      body: JSON.stringify({ filter: { resourceOwners: [organization] }, mode: 'revoke', reason: 'bench', ...change }),
    })
    const text = await response.text()
    if (response.status !== expected) throw new Error(`The revocation was answered ${response.status}: ${text}`)
    return /** @type {{ name: string, previewToken: string }} */ (JSON.parse(text))
  }
  const { previewToken } = await ask({ validateOnly: true }, 200)
  const since = performance.now()
  const { name } = await ask({ previewToken }, 202)
  return { id: name.slice('revocations/'.length), answeredMs: performance.now() - since }
}

/** What Postgres says of it: seconds from its acceptance, and what was ended of what was seeded. */
const read = async (/** @type {Stage} */ { postgres }, /** @type {string} */ id) => {
  const { rows: [row] } = await postgres.sql.query(
    `SELECT r.state = 'done' AS done, r.containment, extract(epoch FROM r.committed_at - r.created_at)::float8 AS committed, extract(epoch FROM r.enforced_at - r.created_at)::float8 AS enforced,
       extract(epoch FROM (SELECT max(committed_at) FROM commits WHERE revocation_id = r.id) - r.created_at)::float8 AS ended,
       (SELECT coalesce(sum(terminated), 0)::int FROM revocation_slices WHERE revocation_id = r.id) AS terminated FROM revocations r WHERE id = $1`, [id])
  return /** @type {{ done: boolean, containment: string, committed: number | null, enforced: number | null, ended: number | null, terminated: number }} */ (row)
}

const untilEnforced = async (/** @type {Stage} */ stage, /** @type {string} */ id, onLook = async () => {}) => {
  for (const until = performance.now() + WITHIN_MS; ; await sleep(250)) {
    const { committed, enforced, ended, ...now } = await read(stage, id)
    await onLook()
    if (now.done && committed !== null && enforced !== null && ended !== null) return { ...now, committed, enforced, ended }
    if (performance.now() > until) throw new Error(`The revocation was not enforced within ${WITHIN_MS / 1_000} s: ${JSON.stringify(now)}`)
  }
}

const queueBytes = async (/** @type {Stage} */ { redis }) => (redis === null ? 0 : (await readRedisMemory(redis.client)).queueBytes)

/** The product alone: sessions per second until the last was ended, seconds until each clock, and the queue's memory. */
const alone = async (/** @type {Stage} */ stage, /** @type {Running} */ running, /** @type {string} */ organization, /** @type {number} */ count) => {
  const memory = [await queueBytes(stage)]
  const { id, answeredMs } = await accept(stage, running, organization)
  const { terminated, containment, committed, enforced, ended } = await untilEnforced(stage, id, async () => void memory.push(await queueBytes(stage)))
  if (terminated !== count) throw new Error(`The revocation ended ${terminated} of ${count}`)
  return { perSecond: count / ended, answeredMs, containment, ended, committed, enforced, queueBytes: { before: memory[0] ?? 0, most: Math.max(...memory) } }
}

const startSteady = async (/** @type {Stage} */ { folder, tokensFile, sessions }, /** @type {Running} */ { url }, /** @type {number} */ perSecond, /** @type {number} */ seconds) => {
  starts += 1
  const walk = await sessions.walkFor(Math.ceil(perSecond * seconds * 1.2) + 1_000)
  const child = startChild({ command: process.execPath, parameters: [program, JSON.stringify({ url, perSecond, walk, tokensFile })], log: join(folder, `steady-${starts}.log`) })
  await outputOf(child, { what: 'the steady load', withinMs: 10_000, find: (output) => (output.includes('STARTED') ? true : null) })
  return async () => {
    if (!(await child.end({ withinMs: 30_000 }))) throw new Error(`The steady load failed:\n${child.output().slice(-2_000)}`)
    const result = /** @type {Steady} */ (JSON.parse(/^RESULT (.*)$/m.exec(child.output())?.[1] ?? '{}'))
    sessions.used(walk.position + result.sent)
    if (result.failed > 0) throw new Error(`${result.failed} log-outs failed`)
    return result
  }
}

/** A stream of log-outs alone, beside a revocation, and alone again; the revocation then goes on by itself. */
const beside = async (/** @type {Stage} */ stage, /** @type {Running} */ running, /** @type {string} */ organization, /** @type {Size} */ { sessions, perSecond, idleSeconds, besideSeconds }) => {
  const idle = async () => {
    const stop = await startSteady(stage, running, perSecond, idleSeconds)
    await sleep(idleSeconds * 1_000)
    return stop()
  }
  const before = await idle()
  const stop = await startSteady(stage, running, perSecond, besideSeconds + 2)
  // As an incident begins: log-outs are under way already.
  await sleep(1_000)
  const { id } = await accept(stage, running, organization)
  const since = performance.now()
  while (performance.now() - since < besideSeconds * 1_000 && !(await read(stage, id)).done) await sleep(100)
  const { terminated, done } = await read(stage, id)
  const seconds = (performance.now() - since) / 1_000
  const during = await stop()
  const all = await untilEnforced(stage, id)
  if (all.terminated !== sessions) throw new Error(`The revocation ended ${all.terminated} of ${sessions}`)
  const after = await idle()
  return { before, during, after, ratio: during.p99Ms / median([before.p99Ms, after.p99Ms]), endedPerSecond: terminated / seconds, doneWithin: done }
}

/**
 * @param {Stage} stage
 * @param {{ repetitions: number, size: Size, say: (line: string) => void }} options
 */
export const measureBulk = async (stage, { repetitions, size, say }) => {
  const { sessions: count } = size
  const organizations = Array.from({ length: repetitions }, (_, n) => ({ hand: `hand-${n}`, alone: `alone-${n}`, beside: `beside-${n}` }))
  say(`Seeding ${(3 * repetitions * count).toLocaleString('en')} more in organizations of ${count.toLocaleString('en')}`)
  for (const each of organizations) for (const organization of Object.values(each)) await seed(stage, organization, count)
  await stage.postgres.sql.query('VACUUM (ANALYZE) sessions, session_events')
  await stage.postgres.sql.query('CHECKPOINT')
  const running = await startVariant(stage, { name: stage.redis === null ? 'curfew-postgres' : 'curfew' })
  await warmUp(stage, running, { leastSeconds: 3 })
  const cells = []
  for (const [n, each] of organizations.entries()) {
    say(`\nRepetition ${n + 1} of ${repetitions}`)
    const runs = /** @type {const} */ ([
      ['hand', async () => ({ hand: await byHand(stage, each.hand, count) })],
      ['alone', async () => ({ alone: await alone(stage, running, each.alone, count) })],
    ])
    /** @type {{ hand?: number, alone?: Awaited<ReturnType<typeof alone>> }} */
    let cell = {}
    for (const [, run] of n % 2 === 0 ? runs : runs.toReversed()) cell = { ...cell, ...(await run()) }
    const { hand = NaN, alone: measured } = cell
    if (measured === undefined) throw new Error('Nothing was measured')
    say(`by hand ${hand.toFixed(0)}/s, Curfew alone ${measured.perSecond.toFixed(0)}/s; answered after ${measured.answeredMs.toFixed(0)} ms, committed after ${measured.committed.toFixed(1)} s, enforced after ${measured.enforced.toFixed(1)} s`)
    const both = await beside(stage, running, each.beside, size)
    say(`${size.perSecond} log-outs/s: p99 ${both.before.p99Ms.toFixed(1)} ms alone, ${both.during.p99Ms.toFixed(1)} ms beside a revocation (${both.during.perSecond.toFixed(0)}/s attained, ` +
      `${both.endedPerSecond.toFixed(0)} sessions/s ended beside them), ${both.after.p99Ms.toFixed(1)} ms after it`)
    cells.push({ hand, alone: measured, beside: both })
  }
  const warnings = running.warnings()
  await running.stop()
  await clean(stage)
  return { repetitions: cells, warnings }
}
