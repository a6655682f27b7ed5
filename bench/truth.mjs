/**
 * Were the answers true? Every 200 is a committed termination with exactly one event; nothing was ended that was not
 * asked for; and asking again gives the details that stand in the row.
 */
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import { idAt } from './sessions.mjs'

/**
 * @typedef {import('./stage.mjs').Stage} Stage
 * @typedef {import('./sessions.mjs').Walk} Walk
 * @typedef {{ ok: number, failed: number, nextPosition: number }} Answered
 */

/** What was in flight when the load ended is committed within this. */
const SETTLE_MS = 5_000
/** Sessions that are asked for again, one after the other. */
const AGAIN = 10

const COUNT = `
SELECT (SELECT count(*) FROM sessions WHERE id = ANY($1) AND state = 'terminated')::int AS terminated,
  count(*)::int AS events, count(DISTINCT session_id)::int AS distinct
FROM session_events WHERE session_id = ANY($1) AND type = 'session.terminated'`

const countOf = async (/** @type {Stage} */ stage, /** @type {string[]} */ ids) => {
  const { rows: [counted] } = await stage.postgres.sql.query(COUNT, [ids])
  return /** @type {{ terminated: number, events: number, distinct: number }} */ (counted)
}

/** Counts when nothing is being committed any more. */
const settledCount = async (/** @type {Stage} */ stage, /** @type {string[]} */ ids) => {
  let last = await countOf(stage, ids)
  for (const until = performance.now() + SETTLE_MS; performance.now() < until; ) {
    await sleep(50)
    const next = await countOf(stage, ids)
    if (next.terminated === last.terminated && next.events === last.events) break
    last = next
  }
  return last
}

/** Asks for some of them once more and compares with the rows: the same answer, of the first termination. */
const wrongAgain = async (/** @type {Stage} */ stage, /** @type {string} */ url, /** @type {Walk} */ walk) => {
  const [token = ''] = readFileSync(stage.tokensFile, 'utf8').split('\n')
  const wrong = []
  for (let at = 0; at < AGAIN; at += 1) {
    const id = idAt(walk, walk.position + at)
    const answer = await fetch(`${url}/v2/sessions/${id}`, { method: 'DELETE', headers: { authorization: `Bearer ${token}` } })
    const { details } = /** @type {{ details?: { sequence: string, changeDate: string, resourceOwner: string } }} */ (await answer.json())
    const { rows: [row] } = await stage.postgres.sql.query('SELECT sequence::text, change_date, resource_owner FROM sessions WHERE id = $1', [id])
    const stands = { sequence: row.sequence, changeDate: row.change_date.toISOString(), resourceOwner: row.resource_owner }
    const same = details !== undefined && isDeepStrictEqual({ ...details }, stands)
    if (!same) wrong.push(`${id}: ${answer.status} ${JSON.stringify(details)} is not ${JSON.stringify(stands)}`)
  }
  return wrong
}

/**
 * @param {Stage} stage
 * @param {{ url: string }} running
 * @param {{ walk: Walk, loaded: Answered }} asked
 */
export const checkTruth = async (stage, { url }, { walk, loaded }) => {
  const asked = loaded.nextPosition - walk.position
  const ids = Array.from({ length: asked }, (_, at) => idAt(walk, walk.position + at))
  const { terminated, events, distinct } = await settledCount(stage, ids)
  const problems = [
    ...(terminated < loaded.ok ? [`${loaded.ok} answers said 200, but only ${terminated} sessions are terminated`] : []),
    ...(events !== terminated || distinct !== events ? [`${terminated} terminated sessions have ${events} events of ${distinct} sessions`] : []),
    ...(terminated > asked ? [`${terminated} sessions are terminated, but only ${asked} were asked for`] : []),
    ...(loaded.failed > 0 ? [`${loaded.failed} requests failed`] : []),
    ...(await wrongAgain(stage, url, walk)),
  ]
  return { ok: loaded.ok, terminated, events, problems }
}

/** At the end of a run: has any session two terminal events? */
export const sessionsWithTwoEvents = async (/** @type {Stage} */ { postgres }) => {
  const { rows: [row] } = await postgres.sql.query(`SELECT count(*)::int AS sessions FROM
    (SELECT session_id FROM session_events WHERE type = 'session.terminated' GROUP BY session_id HAVING count(*) > 1) twice`)
  return Number(row.sessions)
}
