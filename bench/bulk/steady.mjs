/**
 * A steady stream of DELETEs: so many a second, each sent at its time whether the last was answered or not, and its
 * latency reckoned from that time, so that what a slow answer holds up counts as well. Runs until SIGTERM, then prints one
 * RESULT line.
 */
import { readFileSync } from 'node:fs'
import { Pool } from 'undici'
import { idAt } from '../sessions.mjs'

/** @type {{ url: string, perSecond: number, walk: import('../sessions.mjs').Walk, tokensFile: string }} */
const { url, perSecond, walk, tokensFile } = JSON.parse(process.argv[2] ?? '{}')
const tokens = readFileSync(tokensFile, 'utf8').trim().split('\n')
const pool = new Pool(url, { connections: 64, pipelining: 1 })
/** @type {number[]} */
const latencies = []
let failed = 0
let sent = 0
/** @type {Set<Promise<void>>} */
const underWay = new Set()
const began = performance.now()
let stopping = false

const send = async (/** @type {number} */ at, /** @type {number} */ dueMs) => {
  try {
    const { statusCode, body } = await pool.request({
      method: 'DELETE', path: `/v2/sessions/${idAt(walk, walk.position + at)}`, headers: { authorization: `Bearer ${tokens[at % tokens.length]}` },
    })
    await body.dump()
    if (statusCode !== 200) failed += 1
  } catch {
    failed += 1
  }
  latencies.push(performance.now() - dueMs)
}

const tick = () => {
  for (; !stopping && began + (sent * 1_000) / perSecond <= performance.now(); sent += 1) {
    const sending = send(sent, began + (sent * 1_000) / perSecond)
    underWay.add(sending)
    void sending.finally(() => underWay.delete(sending))
  }
  if (!stopping) setTimeout(tick, 1)
}

const stop = async () => {
  stopping = true
  const seconds = (performance.now() - began) / 1_000
  await Promise.all(underWay)
  latencies.sort((a, b) => a - b)
  const quantile = (/** @type {number} */ share) => latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * share))] ?? NaN
  process.stdout.write(`RESULT ${JSON.stringify({
    perSecond: (latencies.length - failed) / seconds, sent, failed, seconds, p50Ms: quantile(0.5), p90Ms: quantile(0.9), p99Ms: quantile(0.99), maxMs: quantile(1),
  })}\n`)
  process.exit(0)
}
process.once('SIGTERM', () => void stop())
process.stdout.write('STARTED\n')
tick()
