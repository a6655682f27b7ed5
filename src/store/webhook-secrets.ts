/**
 * The secrets of webhooks in their receivers' rows: ciphertexts, the newest and, for an overlap, the one before it.
 */
import { CurfewError } from '../errors.ts'
import type { Database } from './postgres.ts'
import { WITHIN, getReceiver, scopeOf } from './receivers.ts'
import type { Within } from './receivers.ts'

/** The secrets that sign now, the newest first. `r` is the receiver. */
export const LIVE_SECRETS = `array_remove(ARRAY[r.secret, CASE WHEN r.secret_previous_until > now() THEN r.secret_previous END], NULL)`

const ROTATE = `
UPDATE receivers r SET secret_previous = r.secret, secret_previous_until = now() + make_interval(secs => $6::float8), secret = $5,
  updated_at = clock_timestamp()
WHERE r.id = $4 AND r.type = 'webhook' AND ${WITHIN}
RETURNING r.secret_previous_until AS until`

/**
 * Puts a new secret in the place of a webhook's; the former signs too for `overlapSeconds`, one before it no more. Not
 * to be repeated blindly: each time is a rotation.
 *
 * @throws CurfewError receiver_not_found for an unknown id and for one beyond the caller's reach, invalid_argument for a
 * receiver that is no webhook.
 */
export const rotateSecret = async (
  db: Database,
  { id, secret, overlapSeconds, ...within }: Within & { id: string; secret: string; overlapSeconds: number },
): Promise<{ previousUntil: Date }> => {
  const [row] = await db.$queryRawUnsafe<{ until: Date }[]>(ROTATE, ...scopeOf(within), id, secret, overlapSeconds)
  if (row !== undefined) return { previousUntil: row.until }
  await getReceiver(db, { id, ...within })
  throw new CurfewError('invalid_argument', { says: 'Only webhooks have a secret' })
}

/** The encrypted secrets that sign for a receiver now. */
export const readLiveSecrets = async (db: Database, id: string): Promise<readonly string[]> => {
  const [row] = await db.$queryRawUnsafe<{ secrets: string[] }[]>(`SELECT ${LIVE_SECRETS} AS secrets FROM receivers r WHERE r.id = $1`, id)
  return row?.secrets ?? []
}
