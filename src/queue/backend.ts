/**
 * Which store BullMQ keeps its queues in: Redis, or Postgres where there is no Redis.
 */
import { runMigrations } from 'bullmq'
import pg from 'pg'

/** Brings the queue's own tables (schema `bullmq`) up to date. May be repeated and run concurrently. */
export const migrateQueue = async (databaseUrl: string): Promise<void> => {
  const client = new pg.Client({ connectionString: databaseUrl, application_name: 'curfew-migrate' })
  await client.connect()
  try {
    await runMigrations(client)
  } finally {
    await client.end()
  }
}
