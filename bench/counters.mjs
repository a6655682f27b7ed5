/** What Postgres and Redis count of their own work: statements, write-ahead log, commands, memory. */

import { streamKeys } from '../dist/client/redis-names.js'

/**
 * @param {import('pg').Pool} sql
 */
export const resetPostgresCounters = async (sql) => {
  await sql.query('SELECT pg_stat_statements_reset()')
}

/** Statements since the reset: how many, how much write-ahead log, and those that took most of the time. */
export const readPostgresCounters = async (/** @type {import('pg').Pool} */ sql) => {
  const ours = `query NOT LIKE '%pg_stat_statements%'`
  const { rows: [all] } = await sql.query(`SELECT coalesce(sum(calls), 0)::float8 AS statements, coalesce(sum(wal_bytes), 0)::float8 AS "walBytes"
    FROM pg_stat_statements WHERE ${ours}`)
  const { rows: top } = await sql.query(`SELECT regexp_replace(left(query, 120), '\\s+', ' ', 'g') AS query, calls::float8, rows::float8,
    total_exec_time AS "totalMs", mean_exec_time AS "meanMs"
    FROM pg_stat_statements WHERE ${ours} ORDER BY total_exec_time DESC LIMIT 8`)
  /** @typedef {{ query: string, calls: number, rows: number, totalMs: number, meanMs: number }} Statement */
  return { statements: Number(all.statements), walBytes: Number(all.walBytes), top: /** @type {Statement[]} */ (top) }
}

/**
 * Redis commands so far, by name; those called from scripts are counted as well.
 *
 * @param {import('ioredis').Redis} redis
 */
export const readRedisCommands = async (redis) => {
  /** @type {Record<string, { calls: number, micros: number }>} */
  const commands = {}
  for (const [, name = '', calls, micros] of (await redis.info('commandstats')).matchAll(/^cmdstat_(\S+?):calls=(\d+),usec=(\d+)/gm)) {
    if (name !== 'info' && name !== 'ping') commands[name] = { calls: Number(calls), micros: Number(micros) }
  }
  return commands
}

/**
 * @param {Record<string, { calls: number, micros: number }>} before
 * @param {Record<string, { calls: number, micros: number }>} after
 */
export const commandsBetween = (before, after) =>
  Object.entries(after)
    .map(([name, { calls, micros }]) => ({ name, calls: calls - (before[name]?.calls ?? 0), micros: micros - (before[name]?.micros ?? 0) }))
    .filter(({ calls }) => calls > 0)
    .sort((a, b) => b.micros - a.micros)

/** What ended sessions leave on purpose, for as long as a token of them could live: the stream's keys. */
const STREAM = '{curfew}:'

/**
 * Redis' memory, and how much of it is the queue's: every key that is not the stream's. Walks all keys, so it is
 * asked only when nothing is being measured.
 *
 * @param {import('ioredis').Redis} redis
 */
export const readRedisMemory = async (redis) => {
  const usedBytes = Number(/^used_memory:(\d+)/m.exec(await redis.info('memory'))?.[1] ?? 0)
  const others = /** @type {string[]} */ ([])
  let cursor = '0'
  do {
    const [next, found] = await redis.scan(cursor, 'COUNT', 5_000)
    cursor = next
    others.push(...found.filter((key) => !key.startsWith(STREAM)))
  } while (cursor !== '0')
  // A job per request can leave thousands of keys; a thousand stand for the rest.
  const sample = others.slice(0, 1_000)
  const sizes = await Promise.all(sample.map((key) => redis.memory('USAGE', key)))
  const queueBytes = (sizes.reduce((/** @type {number} */ sum, size) => sum + (size ?? 0), 0) * others.length) / Math.max(1, sample.length)
  return { usedBytes, queueBytes: Math.round(queueBytes), tombstones: await redis.zcard(streamKeys.tombstones) }
}
