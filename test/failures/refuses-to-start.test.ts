/** What a process refuses to start with, in a sentence and without a stack. More of it: `test/cli`. Faults F15, F57. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'
import { settingsFor, startProcess } from '../harness/processes.ts'
import { redisMissing, startRedis } from '../harness/redis.ts'

describe('a process refuses to start', () => {
  let database: TestDatabase
  let settings: Record<string, string>
  beforeAll(async () => {
    database = await createDatabase()
    settings = settingsFor({ databaseUrl: database.url, redisUrl: null, issuers: [{ issuer: 'https://id.example', audience: 'curfew' }] })
  })
  afterAll(() => database.drop())

  /** What it printed, line by line: sentences for an operator. */
  const refusal = async (change: Record<string, string>): Promise<string[]> => {
    const started = startProcess({ ...settings, ...change })
    const error = await started.then(() => null, (reason: Error) => reason)
    if (error === null) await (await started).kill()
    const said = (error?.message ?? '').replace('curfew serve ended: ', '')
    expect(said).not.toMatch(/\bat .*:\d+|hidden-word/)
    return said.trim().split('\n')
  }

  it('on a database that lacks a migration, had another text of it, or had it fail half way', async () => {
    const { sql } = database
    const { rows: [latest] } = await sql.query<{ id: string; checksum: string }>('SELECT id, checksum FROM _prisma_migrations ORDER BY migration_name DESC LIMIT 1')
    await sql.query(`UPDATE _prisma_migrations SET checksum = 'other' WHERE id = $1`, [latest?.id])
    expect(await refusal({})).toEqual([expect.stringMatching(/was applied from another text/)])
    await sql.query('UPDATE _prisma_migrations SET checksum = $2, finished_at = NULL WHERE id = $1', [latest?.id, latest?.checksum])
    expect(await refusal({})).toEqual([expect.stringMatching(/failed half way/)])
    await sql.query('UPDATE _prisma_migrations SET finished_at = now(), rolled_back_at = now() WHERE id = $1', [latest?.id])
    expect(await refusal({})).toEqual([expect.stringMatching(/lacks .*Run: npx curfew migrate$/)])
    await sql.query('UPDATE _prisma_migrations SET rolled_back_at = NULL WHERE id = $1', [latest?.id])
  })

  it('without Postgres, and where Postgres knows no such database', async () => {
    expect(await refusal({ DATABASE_URL: 'postgresql://u:hidden-word@127.0.0.1:1/x' })).toEqual([expect.stringMatching(/^Postgres cannot be reached/)])
    const wrong = new URL(database.url)
    wrong.pathname = '/nowhere'
    expect(await refusal({ DATABASE_URL: wrong.href })).toEqual([expect.stringMatching(/nowhere/)])
  })

  it.skipIf(redisMissing)('with a Redis that evicts', async () => {
    const evicting = await startRedis(['--maxmemory-policy', 'volatile-ttl'])
    expect(await refusal({ REDIS_URL: evicting.url })).toEqual([expect.stringMatching(/maxmemory-policy volatile-ttl.*noeviction/)])
    await evicting.stop()
  })

  it('with wrong and missing settings, a line for each', async () => {
    const wrong = {
      REDIS_URL: 'http://hidden-word', PORT: '70000', ROLES: 'hidden-word', ISSUERS: '{', QUEUE_SECRET: 'hidden-word', KEY_ENCRYPTION_KEY: '',
      COMMIT_WAIT: '-1', LOG_LEVEL: 'hidden-word',
    }
    const said = await refusal(wrong)
    expect(said.map((line) => line.split(' ')[0])).toEqual(Object.keys(wrong))
    for (const line of said) expect(line).toMatch(/^[A-Z_]+( \(.*\))? is (wrong|missing): ./)
  })
})
