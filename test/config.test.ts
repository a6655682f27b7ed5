import { expect, it } from 'vitest'
import { readConfig } from '../src/config.ts'
import { settingsFor } from './harness/processes.ts'

const queueFrom = (redisUrl: string | null, set: Record<string, string> = {}) => {
  const { QUEUE_FROM: _, ...settings } = settingsFor({ databaseUrl: 'postgresql://u:p@127.0.0.1/x', redisUrl, issuers: [{ issuer: 'https://login.example', audience: 'curfew' }] })
  return readConfig({ ...settings, ...set }).queue.queueFrom
}

it('uses a queue on Postgres later than one on Redis, unless it is told from when on', () => {
  expect([queueFrom('redis://127.0.0.1'), queueFrom(null)]).toEqual([128, 1_000])
  expect([queueFrom('redis://127.0.0.1', { QUEUE_FROM: '7' }), queueFrom(null, { QUEUE_FROM: '7' })]).toEqual([7, 7])
})
