/** The run's own Redis: append-only file flushed every second, nothing evicted. It can be frozen and killed. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { mkdirSync } from 'node:fs'
import { Redis } from 'ioredis'
import { startChild } from './child.mjs'
import { freePort } from './free-port.mjs'

export const redisSettings = { appendonly: 'yes', appendfsync: 'everysec', save: '', 'maxmemory-policy': 'noeviction' }

const candidates = [process.env['REDIS_SERVER'] ?? '', 'redis-server', 'valkey-server']

/** The server's binary, or null where this machine has none. */
export const redisBinary = candidates.find((name) => name !== '' && spawnSync(name, ['--version']).status === 0) ?? null

/** @typedef {Awaited<ReturnType<typeof startRedis>>} RedisServer */

/**
 * @param {string} binary
 * @param {string} folder
 */
export const startRedis = async (binary, folder) => {
  const dir = join(folder, 'redis')
  mkdirSync(dir)
  const port = await freePort()
  const settings = Object.entries(redisSettings).flatMap(([name, value]) => [`--${name}`, value])
  const parameters = ['--port', String(port), '--bind', '127.0.0.1', '--dir', dir, ...settings]
  const begin = () => startChild({ command: binary, parameters, log: join(folder, 'redis.log') })
  let server = begin()
  const client = new Redis(port, '127.0.0.1', { retryStrategy: () => 50, maxRetriesPerRequest: null })
  client.on('error', () => {})
  await client.ping()
  return {
    url: `redis://127.0.0.1:${port}`,
    client,
    get pid() {
      return server.pid
    },
    /** Connected but silent. */
    freeze: () => server.signal('SIGSTOP'),
    thaw: () => server.signal('SIGCONT'),
    kill: () => server.end({ signal: 'SIGKILL' }),
    /** Again on the same port, with what the append-only file holds. */
    restart: () => {
      server = begin()
    },
    stop: async () => {
      client.disconnect()
      await server.end({ withinMs: 5_000 })
    },
  }
}
