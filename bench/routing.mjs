/**
 * Routing: how many deliveries one worker plans a second, of log-outs and of a revocation, each by the statement of its own
 * and through the product's own client. Sessions are ended by SQL in the sizes of commits that each has.
 */
import { createRouteRevocations } from '../dist/outbox/route-revocations.js'
import { createRoute } from '../dist/outbox/route.js'
import { openDatabase } from '../dist/store/postgres.js'
import { median } from './goals.mjs'
import { cpuSeconds } from './usage.mjs'

/**
 * @typedef {import('./stage.mjs').Stage} Stage
 * @typedef {'log-outs' | 'revocation' | 'revocation, told by user' | 'revocation, paced'} Kind
 * @typedef {{ kind: Kind, deliveries: number, perSecond: number, perCpuSecond: number }} Measured
 */

const CLIENTS = 2
const RECEIVERS = 20
const LIFETIME_SECONDS = 86_400
/** What a worker's batch holds under load, and what a chunk of a revocation that is alone holds. */
const SESSIONS_OF_A_COMMIT = { logOuts: 100, revocation: 2_000 }

const seed = (/** @type {Stage} */ { postgres: { sql }, issuer }, /** @type {{ prefix: string, sessions: number, subject: string }} */ { prefix, sessions, subject }) =>
  sql.query(
    `WITH r AS (
       INSERT INTO receivers (id, type, url, issuer, client_id, subject)
       SELECT $1 || n, 'backchannel_logout', 'https://rp.example', $2, $1 || n, $4::text::subject_form FROM generate_series(0, ${RECEIVERS - 1}) n
     ), s AS (
       INSERT INTO sessions (id, issuer, user_id, resource_owner, sequence, registration_hash, creator_issuer, creator_subject, born, created_at, change_date, expires_at)
       SELECT $1 || n, $2, $1 || 'user' || n / 2, 'o1', 1, 'x', 'i', 's', now(), now(), now(), now() + interval '1 day' FROM generate_series(1, $3::int) n
       RETURNING id, user_id
     ), e AS (
       INSERT INTO session_events (session_id, sequence, type, actor_issuer, actor_subject, resource_owner, created_at)
       SELECT id, 1, 'session.added', 'i', 's', 'o1', now() FROM s
     )
     INSERT INTO session_clients SELECT s.id, $1 || ((hashtext(s.id) & 1023) + k) % ${RECEIVERS}, s.id, s.user_id FROM s, generate_series(0, ${CLIENTS - 1}) k`,
    [prefix, issuer.url, sessions, subject])

/** Ends them all, so many in a commit. */
const end = (/** @type {Stage} */ { postgres: { sql } }, /** @type {{ prefix: string, each: number, revocation: string | null }} */ { prefix, each, revocation }) =>
  sql.query(
    `WITH ended AS (
       UPDATE sessions SET state = 'terminated', sequence = 2, terminated_at = now(), change_date = now() WHERE id LIKE $1 || '%' RETURNING id
     ), numbered AS (SELECT id, (row_number() OVER (ORDER BY hashtext(id)) - 1) / $2::int AS batch FROM ended
     ), batches AS (SELECT batch, count(*) AS sessions, nextval('commits_id_seq') AS commit_id FROM numbered GROUP BY batch
     ), receipts AS (
       INSERT INTO commits (id, sessions, revocation_id, enforced_at, enforced_again_at) SELECT commit_id, sessions, $3::uuid, now(), now() FROM batches
     )
     INSERT INTO session_events (session_id, sequence, type, mode, actor_issuer, actor_subject, revocation_id, commit_id, resource_owner, created_at)
     SELECT n.id, 2, 'session.terminated', 'revoke', 'i', 'a', $3, b.commit_id, 'o1', now() FROM numbered n JOIN batches b USING (batch)`,
    [prefix, each, revocation])

const accept = async (/** @type {Stage} */ { postgres: { sql }, issuer }, /** @type {number | null} */ deliveriesPerSecond) => {
  const { rows: [row] } = await sql.query(
    `INSERT INTO revocations (id, mode, reason, actor_issuer, actor_subject, issuers, instance, organizations, filter, exclude, containment, cutoff_time, deliveries_per_second, expected, expected_exact)
     VALUES (gen_random_uuid(), 'revoke', 'bench', 'i', 'a', ARRAY[$1], true, '{}', '{}', '{}', 'rows', date_trunc('second', now()) + interval '1 s', $2, 0, true) RETURNING id::text`,
    [issuer.url, deliveriesPerSecond])
  return /** @type {string} */ (row.id)
}

/** @param {Stage} stage @param {{ kind: Kind, sessions: number, prefix: string }} asked @returns {Promise<Measured>} */
const measureOne = async (stage, { kind, sessions, prefix }) => {
  const { sql, url } = stage.postgres
  const ofUsers = kind === 'revocation, told by user'
  await seed(stage, { prefix, sessions, subject: ofUsers ? 'sub' : 'sid' })
  const revocation = kind === 'log-outs' ? null : await accept(stage, kind === 'revocation, paced' ? 1_000_000 : null)
  await end(stage, { prefix, each: kind === 'log-outs' ? SESSIONS_OF_A_COMMIT.logOuts : SESSIONS_OF_A_COMMIT.revocation, revocation })
  await sql.query('VACUUM (ANALYZE) sessions, session_events, session_clients, commits')
  // One connection, so that its processor time is that of routing.
  const db = openDatabase({ url, name: 'bench-routing', max: 1 })
  const deps = { db, wakeReceiver: () => {}, maxTokenLifetimeSeconds: LIFETIME_SECONDS }
  const route = kind === 'log-outs' ? createRoute(deps) : createRouteRevocations(deps)
  const [backend] = /** @type {[{ pid: number }]} */ (await db.$queryRawUnsafe('SELECT pg_backend_pid() AS pid'))
  const before = cpuSeconds(backend.pid)
  const sinceMs = performance.now()
  await route()
  const seconds = (performance.now() - sinceMs) / 1_000
  const cpu = cpuSeconds(backend.pid) - before
  await db.$disconnect()
  const { rows: [row] } = await sql.query('SELECT count(*)::int AS deliveries FROM deliveries WHERE receiver_id LIKE $1 || \'%\'', [prefix])
  // Told by user, a delivery stands for all sessions of one; what is planned is what they come to.
  const told = ofUsers ? sessions * CLIENTS : row.deliveries
  if (!ofUsers && told !== sessions * CLIENTS) throw new Error(`${told} deliveries planned for ${sessions} sessions with ${CLIENTS} clients each`)
  await sql.query('TRUNCATE deliveries, receivers, revocation_outcomes')
  return { kind, deliveries: row.deliveries, perSecond: told / seconds, perCpuSecond: told / cpu }
}

/** @param {Stage} stage @param {{ repetitions: number, sessions: number, say: (line: string) => void }} options */
export const measureRouting = async (stage, { repetitions, sessions, say }) => {
  /** @type {Measured[]} */
  const measured = []
  for (let repetition = 0; repetition < repetitions; repetition += 1) {
    for (const kind of /** @type {const} */ (['log-outs', 'revocation', 'revocation, told by user', 'revocation, paced'])) {
      const one = await measureOne(stage, { kind, sessions, prefix: `r${repetition}-${kind}-` })
      say(`${kind.padEnd(26)} ${one.perSecond.toFixed(0).padStart(7)}/s, ${one.perCpuSecond.toFixed(0).padStart(7)} per second of Postgres' processor time`)
      measured.push(one)
    }
  }
  return measured
}

/** DESIGN §12. */
const GOAL = 80_000

/** @param {readonly Measured[]} measured */
export const renderRouting = (measured) =>
  [...new Set(measured.map(({ kind }) => kind))].map((kind) => {
    const rates = measured.filter((one) => one.kind === kind).map(({ perSecond }) => perSecond)
    const middle = median(rates)
    const ofCpu = median(measured.filter((one) => one.kind === kind).map(({ perCpuSecond }) => perCpuSecond))
    return `deliveries planned per second, one worker, ${kind}: ${middle.toFixed(0)} (${Math.min(...rates).toFixed(0)}–${Math.max(...rates).toFixed(0)}), ${ofCpu.toFixed(0)} per second of Postgres' processor time  ` +
      `(goal: ≥ ${GOAL.toLocaleString('en')}: ${middle >= GOAL ? 'met' : 'NOT MET'})`
  })
