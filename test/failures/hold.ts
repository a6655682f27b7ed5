/**
 * Holds transactions at a chosen moment: after an event of a session is written and before it is committed. A trigger
 * of the test's own waits for an advisory lock that the test holds. (The service's own limits go on: 3 s a statement.)
 */
import type { Pool } from 'pg'
import { vi } from 'vitest'

const TRIGGER = `
CREATE FUNCTION test_hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('lock_timeout', '0', true);
  PERFORM pg_advisory_xact_lock_shared(hashtext(NEW.session_id));
  RETURN NULL;
END $$;
CREATE TRIGGER test_hold AFTER INSERT ON session_events FOR EACH ROW EXECUTE FUNCTION test_hold()`

export interface Hold {
  /** Resolves with the backends that are being held, once there are `count`. */
  caught(count?: number): Promise<number[]>
  release(): Promise<void>
}

/** @returns a function that holds, from now on, whoever writes an event of this session. */
export const createHold = async (sql: Pool): Promise<(sessionId: string) => Promise<Hold>> => {
  await sql.query(TRIGGER)
  return async (sessionId) => {
    const client = await sql.connect()
    await client.query('SELECT pg_advisory_lock(hashtext($1))', [sessionId])
    return {
      caught: (count = 1) =>
        vi.waitUntil(
          async () => {
            const { rows } = await client.query<{ pid: number }>(
              `SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
            return rows.length >= count ? rows.map(({ pid }) => pid) : null
          },
          { timeout: 10_000, interval: 5 },
        ),
      release: async () => {
        await client.query('SELECT pg_advisory_unlock_all()')
        client.release()
      },
    }
  }
}
