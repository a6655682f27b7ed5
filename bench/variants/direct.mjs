/**
 * The product's own commit and its own way of gathering, in the API's process, without a queue: what the queue costs
 * is the difference. It tells the caches as the product does, and hands nothing on to receivers.
 */
import { createCacheChannel } from '../../dist/channels/cache.js'
import { createStreamChannel } from '../../dist/channels/stream.js'
import { readSettings } from '../../dist/config.js'
import { createEnforcement } from '../../dist/outbox/enforce.js'
import { createGather } from '../../dist/store/gather.js'
import { openDatabase } from '../../dist/store/postgres.js'
import { createPlainRedis } from '../../dist/store/redis.js'
import { createTelemetry } from '../../dist/telemetry.js'
import { createTerminate } from '../../dist/termination/terminate.js'
import { serve } from './server.mjs'

/**
 * @typedef {import('../../dist/model.js').TerminateCommand} TerminateCommand
 * @typedef {import('../../dist/model.js').TerminateAnswer} TerminateAnswer
 * @typedef {{ command: TerminateCommand, resolve: (answer: TerminateAnswer) => void, reject: (error: unknown) => void }} Ask
 */

const settings = readSettings(process.env, ['DATABASE_URL', 'REDIS_URL', 'DATABASE_POOL', 'CACHE_SECOND_DELETE', 'MAX_TOKEN_LIFETIME'])
const { log, metrics } = createTelemetry({ level: 'warn' })
const db = openDatabase({ url: settings.DATABASE_URL, name: 'direct', max: settings.DATABASE_POOL })
const redis = settings.REDIS_URL === undefined ? null : createPlainRedis(settings.REDIS_URL, () => {})
const enforcement = createEnforcement({
  db,
  channel: createCacheChannel({ cache: redis, keyTemplates: [] }),
  stream: redis === null ? null : createStreamChannel({ redis, maxTokenLifetimeSeconds: settings.MAX_TOKEN_LIFETIME, now: Date.now }),
  secondDeleteSeconds: settings.CACHE_SECOND_DELETE,
  metrics,
  log,
})
const terminate = createTerminate({ db, enforce: enforcement.enforce, wakeRoute: () => {}, log })

const settle = (/** @type {Ask} */ ask, /** @type {TerminateAnswer | undefined} */ answer) => {
  if (answer === undefined) ask.reject(new Error('No answer'))
  else if (answer.outcome === 'busy') setTimeout(() => gather.push(ask), 10)
  else ask.resolve(answer)
}

/** @type {import('../../dist/store/gather.js').Gather<Ask>} */
const gather = createGather({
  // As in the product's line.
  atMost: 500,
  inFlight: 2,
  matters: () => true,
  run: async (/** @type {Ask[]} */ asks) => {
    try {
      const answers = await terminate(asks.map(({ command }) => command))
      asks.forEach((ask, at) => settle(ask, answers[at]))
    } catch (error) {
      for (const { reject } of asks) reject(error)
    }
  },
})

const ask = (/** @type {TerminateCommand} */ command) =>
  new Promise((/** @type {(answer: TerminateAnswer) => void} */ resolve, reject) => gather.push({ command, resolve, reject }))

await enforcement.start()
await serve({
  end: async (sessionId, { actor, sessionIssuers }) => {
    const answer = await ask({ sessionId, issuers: sessionIssuers, actor, mode: 'logout', reason: null })
    return 'details' in answer ? answer.details : null
  },
  stop: async () => {
    await enforcement.stop()
    await db.$disconnect()
    redis?.disconnect()
  },
})
