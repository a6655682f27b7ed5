/** The load where there is no `wrk`: the same walk, by autocannon, in this process of its own. Prints one RESULT line. */
import { readFileSync } from 'node:fs'
// @ts-expect-error It brings no types.
import autocannon from 'autocannon'
import { idAt } from './sessions.mjs'

/** @type {import('./load.mjs').Ask & { answerLimitSeconds: number }} */
const { url, connections, seconds, walk, tokensFile, detail, answerLimitSeconds } = JSON.parse(process.argv[2] ?? '{}')
const tokens = readFileSync(tokensFile, 'utf8').trim().split('\n')
const began = performance.now()
let sent = 0
/** @type {Record<string, number>} */
const bySecond = {}
/** @type {Record<string, number>} */
const statuses = {}

const result = await autocannon({
  url,
  connections,
  duration: seconds,
  timeout: answerLimitSeconds,
  requests: [
    {
      method: 'DELETE',
      setupRequest: (/** @type {object} */ request) => {
        const at = walk.position + sent++
        return { ...request, path: `/v2/sessions/${idAt(walk, at)}`, headers: { authorization: `Bearer ${tokens[at % tokens.length]}` } }
      },
      onResponse: (/** @type {number} */ status) => {
        if (detail !== true) return
        const counts = status === 200 ? bySecond : statuses
        const key = String(status === 200 ? Math.floor((performance.now() - began) / 1_000) + 1 : status)
        counts[key] = (counts[key] ?? 0) + 1
      },
    },
  ],
})
const answered = result['2xx'] + result.non2xx
const { p50, p90, p99, max } = result.latency
const micros = (/** @type {number} */ ms) => Math.round(ms * 1_000)
process.stdout.write(`\nRESULT ${JSON.stringify({
  requests: answered, micros: micros(result.duration * 1_000), perThread: sent, refused: result.non2xx, broken: result.errors - result.timeouts,
  late: result.timeouts, p50: micros(p50), p90: micros(p90), p99: micros(p99), max: micros(max), seconds: bySecond, statuses,
})}\n`)
