/**
 * The usual way to put a queue in between: one BullMQ job per request, waited for with `waitUntilFinished`, and a
 * worker process that ends each session in a transaction of its own.
 */
import { Queue, QueueEvents, Worker } from 'bullmq'
import { readSettings } from '../../dist/config.js'
import { createPlainTransaction } from './plain-transaction.mjs'
import { sayStarted, serve, stopWith } from './server.mjs'

const { DATABASE_URL, REDIS_URL = '' } = readSettings(process.env, ['DATABASE_URL', 'REDIS_URL'])
const connections = Number(process.env['BENCH_POOL'] ?? 10)
const url = new URL(REDIS_URL)
const connection = { host: url.hostname, port: Number(url.port) }

/** As long as the product waits before it answers 504. */
const WAIT_MS = 10_000

if (process.env['ROLES'] === 'api') {
  const queue = new Queue('end-session', {
    connection,
    // Some are kept: a job that is removed at once can be gone before its asker begins to wait for it.
    defaultJobOptions: { removeOnComplete: { count: 2_000 }, removeOnFail: { count: 2_000 } },
  })
  // One listener for each job that is waited for.
  queue.setMaxListeners(0)
  const events = new QueueEvents('end-session', { connection })
  await events.waitUntilReady()
  await serve({
    end: async (sessionId, { actor, sessionIssuers }) => {
      const job = await queue.add('end', { sessionId, actor, issuers: sessionIssuers })
      return job.waitUntilFinished(events, WAIT_MS)
    },
    stop: () => Promise.all([events.close(), queue.close()]),
  })
} else {
  const { end, close } = createPlainTransaction({ url: DATABASE_URL, connections })
  // As many jobs at once as the pool has connections, twice: while one half writes, the other is fetched.
  const worker = new Worker('end-session', (job) => end(job.data), { connection, concurrency: 2 * connections })
  await worker.waitUntilReady()
  stopWith(async () => {
    await worker.close()
    await close()
  })
  sayStarted(null)
}
