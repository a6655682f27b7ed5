/** What a team would write without a queue, on `pg`: one transaction per request. */
import { readSettings } from '../../dist/config.js'
import { createPlainTransaction } from './plain-transaction.mjs'
import { serve } from './server.mjs'

const { DATABASE_URL } = readSettings(process.env, ['DATABASE_URL'])
const { end, close } = createPlainTransaction({ url: DATABASE_URL, connections: Number(process.env['BENCH_POOL'] ?? 10) })

await serve({
  end: (sessionId, { actor, sessionIssuers }) => end({ sessionId, actor, issuers: sessionIssuers }),
  stop: close,
})
