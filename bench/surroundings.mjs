/** What a figure must be read with: commit, versions, settings, machine. */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { cpus, loadavg, release, totalmem } from 'node:os'
import { join } from 'node:path'
import { loadGenerator } from './load.mjs'
import { postgresSettings } from './postgres-server.mjs'
import { redisSettings } from './redis-server.mjs'
import { root } from './root.mjs'
import { productSettings } from './stage.mjs'
import { TOKENS } from './token-issuer.mjs'
import { usageKnown } from './usage.mjs'

const git = (/** @type {string[]} */ ...parameters) => spawnSync('git', parameters, { cwd: root, encoding: 'utf8' }).stdout.trim()
const versionOf = (/** @type {string} */ name) => JSON.parse(readFileSync(join(root, 'node_modules', name, 'package.json'), 'utf8')).version
const packages = ['bullmq', 'ioredis', 'fastify', 'pg', '@prisma/client', '@prisma/adapter-pg', 'jose']

/** @param {import('./stage.mjs').Stage} stage */
export const readSurroundings = async ({ postgres, redis }) => {
  const { rows: [row] } = await postgres.sql.query('SHOW server_version')
  const redisVersion = redis === null ? null : (/^redis_version:(\S+)/m.exec(await redis.client.info('server'))?.[1] ?? null)
  const [cpu] = cpus()
  return {
    commit: git('rev-parse', 'HEAD'),
    /** Files that differ from the commit, the bench's own results aside. */
    changed: git('status', '--porcelain', '--', '.', ':!bench/results').split('\n').filter((line) => line !== ''),
    versions: {
      node: process.version,
      postgres: row.server_version,
      redis: redisVersion,
      ...Object.fromEntries(packages.map((name) => [name, versionOf(name)])),
    },
    loadGenerator,
    settings: { postgres: postgresSettings, redis: redisSettings, product: productSettings, bearerTokens: TOKENS },
    machine: {
      cpu: cpu?.model.trim(),
      cores: cpus().length,
      memoryGb: Math.round(totalmem() / 2 ** 30),
      kernel: release(),
      loadAverage: loadavg()[0],
      usageKnown,
    },
  }
}
