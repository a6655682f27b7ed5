/**
 * `curfew serve`: reads the settings, refuses what cannot work, runs the chosen roles until told to stop.
 *
 * SIGTERM or SIGINT stops it: nothing new is accepted, what was accepted is answered, connections are closed. The
 * stop has its own deadline (`SHUTDOWN_TIMEOUT`); what was accepted by then is committed or in Postgres to be found.
 */
import { readConfig } from './config.ts'
import { createService } from './service.ts'
import { assertMigrated } from './store/migrations.ts'
import { RedisAwayError, assertRedisUsable } from './store/redis.ts'
import { createTelemetry } from './telemetry.ts'
import type { Log } from './telemetry.ts'

/**
 * Runs the service and resolves, once it has stopped, with the exit code: 0 after a clean stop, 1 where the deadline
 * passed or something threw that nobody caught.
 *
 * @throws ConfigError, MigrationError or RedisUnusableError, each with a sentence for the operator, before anything
 * was started.
 */
export const main = async (environment: NodeJS.ProcessEnv): Promise<number> => {
  const config = readConfig(environment)
  await assertMigrated(config.database.url)
  const telemetry = createTelemetry({ level: config.logLevel })
  if (config.redisUrl !== null) await checkRedis(config.redisUrl, telemetry.log)
  const service = await createService(config, { telemetry })
  const told = whenToldToStop(telemetry.log)
  const { apiUrl, opsUrl } = await service.start()
  telemetry.log.info({ event: 'service.started', roles: config.roles, apiUrl, opsUrl }, 'Started')

  const why = await told
  if (why !== 'crashed') telemetry.log.info({ event: 'service.stopping', signal: why.signal }, 'Stopping')
  const inTime = await stopWithin(() => service.stop(), config.shutdownTimeoutMs)
  telemetry.log.info({ event: 'service.stopped', inTime }, inTime ? 'Stopped' : 'Not stopped in time')
  return inTime && why !== 'crashed' ? 0 : 1
}

/** A process that restarts while Redis is away must come up: it commits by itself, as those do that were up before. */
const checkRedis = async (url: string, log: Log): Promise<void> => {
  try {
    await assertRedisUsable(url)
  } catch (error) {
    if (!(error instanceof RedisAwayError)) throw error
    log.warn({ event: 'service.redis_away', err: error }, 'Redis cannot be reached; starting without it until it comes')
  }
}

/** A signal, or an error that nobody caught: after one, the state of the process is not to be trusted. Each is logged. */
const whenToldToStop = (log: Log) =>
  new Promise<{ signal: NodeJS.Signals } | 'crashed'>((resolve) => {
    process.on('SIGTERM', (signal) => resolve({ signal }))
    process.on('SIGINT', (signal) => resolve({ signal }))
    process.on('uncaughtException', (error) => {
      log.fatal({ event: 'service.crashed', err: error }, 'An error that nobody caught')
      resolve('crashed')
    })
  })

/** Resolves with true when `stop` ended within the time, false when it did not. */
export const stopWithin = async (stop: () => Promise<void>, timeoutMs: number): Promise<boolean> => {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), timeoutMs)
  })
  try {
    return await Promise.race([stop().then(() => true), late])
  } finally {
    clearTimeout(timer)
  }
}
