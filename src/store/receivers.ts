/**
 * Receivers: who is told. A receiver of an organization is seen and changed within it; one of the instance by those
 * whose permission holds for the whole instance; either only by those who speak for its issuer. Beyond that a receiver
 * does not exist: every function answers `receiver_not_found` in the same way for an unknown and for a foreign id.
 */
import { CurfewError } from '../errors.ts'
import type { ReceiverType, SubjectForm } from '../model.ts'
import type { Database } from './postgres.ts'

/** Where a permission holds: the whole instance, or some organizations. */
export type ReceiverReach = 'instance' | ReadonlySet<string>

/** What a caller may see or change: organization and issuer must both fit. */
export interface Within {
  readonly reach: ReceiverReach
  /** The issuers that the caller speaks for. */
  readonly issuers: readonly string[]
}

/** What a registration says. The URL must have passed `checkReceiverUrl`. */
export interface ReceiverSettings {
  readonly type: ReceiverType
  readonly url: string
  readonly issuer: string | null
  readonly clientId: string | null
  /** Null: a receiver of the instance. */
  readonly resourceOwner: string | null
  readonly subject: SubjectForm
  readonly alg: string
  readonly events: readonly string[]
  readonly maxConcurrency: number
  readonly ratePerSecond: number | null
  readonly enabled: boolean
}

export interface Receiver extends ReceiverSettings {
  readonly id: string
  readonly createdAt: Date
  readonly updatedAt: Date
  readonly consecutiveFailures: number
  /** The breaker is open until then; null: closed. */
  readonly brokenUntil: Date | null
  /** When it said that it is gone for good and was switched off, or null. */
  readonly goneAt: Date | null
  readonly lastSuccessAt: Date | null
  readonly lastFailureAt: Date | null
  /** `half_open`: its time is over, and the next attempt decides. */
  readonly breaker: 'closed' | 'open' | 'half_open'
  /** A process tells it at this moment. */
  readonly draining: boolean
  /** Deliveries not yet told, counted up to a bound: 100,000 of one receiver, 1,000 of each in a list. */
  readonly pending: number
  /** When the oldest of them was planned, or null: none. */
  readonly oldestPendingAt: Date | null
}

/** Counting costs a look at each index entry: some tens of milliseconds for one receiver, some hundred for a page of 1,000. */
const MAX_COUNTED_OF_ONE = 100_000
const MAX_COUNTED_OF_EACH = 1_000

/** Relies on deliveries_due, deliveries_of_revocations_due and deliveries_by_state. */
const columns = (maxCounted: number): string => `r.id, r.type::text AS type, r.url, r.issuer, r.client_id AS "clientId", r.resource_owner AS "resourceOwner",
  r.subject::text AS subject, r.alg, r.events, r.max_concurrency AS "maxConcurrency", r.rate_per_second AS "ratePerSecond",
  r.enabled, r.created_at AS "createdAt", r.updated_at AS "updatedAt", r.consecutive_failures AS "consecutiveFailures",
  r.broken_until AS "brokenUntil", r.gone_at AS "goneAt", r.last_success_at AS "lastSuccessAt", r.last_failure_at AS "lastFailureAt",
  CASE WHEN r.broken_until IS NULL THEN 'closed' WHEN r.broken_until > now() THEN 'open' ELSE 'half_open' END AS breaker,
  coalesce(r.drained_until > now(), false) AS draining,
  (SELECT count(*)::int FROM (
    SELECT FROM deliveries d WHERE d.receiver_id = r.id AND d.state = 'pending' AND d.revocation_id IS NULL
    UNION ALL SELECT FROM deliveries d WHERE d.receiver_id = r.id AND d.state = 'pending' AND d.revocation_id IS NOT NULL LIMIT ${maxCounted}) p) AS pending,
  (SELECT d.created_at FROM deliveries d WHERE d.receiver_id = r.id AND d.state = 'pending' ORDER BY d.id LIMIT 1) AS "oldestPendingAt"`

/** `$1` says whether the whole instance is within reach, `$2` which organizations are, `$3` which issuers. */
export const WITHIN = '($1::boolean OR r.resource_owner = ANY($2::text[])) AND (r.issuer IS NULL OR r.issuer = ANY($3::text[]))'

// A receiver keeps its type, because what is planned for it fits that type alone; and a webhook keeps its secret.
// A new address or a receiver switched on again starts with a closed breaker: what failed before says nothing of it.
const PUT = `
INSERT INTO receivers AS r (id, type, url, issuer, client_id, resource_owner, subject, alg, events, max_concurrency, rate_per_second, enabled, secret)
VALUES ($4, $5::text::receiver_type, $6, $7, $8, $9, $10::text::subject_form, $11, $12, $13, $14, $15, $16)
ON CONFLICT (id) DO UPDATE SET
  url = excluded.url, issuer = excluded.issuer, client_id = excluded.client_id,
  resource_owner = excluded.resource_owner, subject = excluded.subject, alg = excluded.alg, events = excluded.events,
  max_concurrency = excluded.max_concurrency, rate_per_second = excluded.rate_per_second, enabled = excluded.enabled,
  updated_at = clock_timestamp(),
  gone_at = CASE WHEN excluded.enabled THEN NULL ELSE r.gone_at END,
  broken_until = CASE WHEN r.url = excluded.url AND r.enabled = excluded.enabled THEN r.broken_until END,
  consecutive_failures = CASE WHEN r.url = excluded.url AND r.enabled = excluded.enabled THEN r.consecutive_failures ELSE 0 END
WHERE r.type = excluded.type AND ${WITHIN}
RETURNING ${columns(MAX_COUNTED_OF_ONE)}, (r.xmax = 0) AS created`

/** Deliveries removed by one statement, well within the statement timeout. */
const DELETE_SLICE = 5_000

export const scopeOf = ({ reach, issuers }: Within): [boolean, string[], readonly string[]] =>
  reach === 'instance' ? [true, [], issuers] : [false, [...reach], issuers]

/**
 * Creates or replaces a receiver. May be repeated.
 *
 * @param asked.secret a webhook's, encrypted: kept where the receiver is created, else left aside; null for other types.
 * @throws CurfewError permission_denied where the receiver asked for lies beyond the caller's reach, receiver_not_found
 * where the id belongs to a receiver beyond it, invalid_argument where it is a receiver of another type.
 */
export const putReceiver = async (
  db: Database,
  { id, settings, secret, ...within }: Within & { id: string; settings: ReceiverSettings; secret: string | null },
): Promise<{ receiver: Receiver; created: boolean }> => {
  const { resourceOwner: owner, issuer } = settings
  const { reach, issuers } = within
  if (reach !== 'instance' && (owner === null || !reach.has(owner))) throw new CurfewError('permission_denied')
  if (issuer !== null && !issuers.includes(issuer)) throw new CurfewError('permission_denied')
  const [row] = await db.$queryRawUnsafe<(Receiver & { created: boolean })[]>(
    PUT, ...scopeOf(within), id, settings.type, settings.url, settings.issuer, settings.clientId, owner, settings.subject,
    settings.alg, settings.events, settings.maxConcurrency, settings.ratePerSecond, settings.enabled, secret,
  )
  if (row === undefined) {
    const { type } = await getReceiver(db, { id, reach, issuers })
    throw new CurfewError('invalid_argument', { says: `type: this receiver is a ${type} and stays one; delete it first` })
  }
  const { created, ...receiver } = row
  return { receiver, created }
}

/** @throws CurfewError receiver_not_found for an unknown id and for one beyond the caller's reach. */
export const getReceiver = async (db: Database, { id, ...within }: Within & { id: string }): Promise<Receiver> => {
  const [row] = await db.$queryRawUnsafe<Receiver[]>(
    `SELECT ${columns(MAX_COUNTED_OF_ONE)} FROM receivers r WHERE r.id = $4 AND ${WITHIN}`, ...scopeOf(within), id,
  )
  if (row === undefined) throw new CurfewError('receiver_not_found')
  return row
}

/** Up to `limit` receivers within reach in id order, after the id `after` (null: from the first). */
export const listReceivers = (
  db: Database,
  { after, limit, ...within }: Within & { after: string | null; limit: number },
): Promise<Receiver[]> =>
  db.$queryRawUnsafe<Receiver[]>(
    `SELECT ${columns(MAX_COUNTED_OF_EACH)} FROM receivers r WHERE ${WITHIN} AND r.id > $4 ORDER BY r.id LIMIT $5`,
    ...scopeOf(within), after ?? '', limit,
  )

/**
 * Deletes a receiver and its deliveries, in bounded steps: it is switched off first, so that nothing more is sent;
 * a crash half way leaves it switched off, and asking again finishes. What is not yet told is then never told.
 *
 * @throws CurfewError receiver_not_found for an unknown id and for one beyond the caller's reach.
 */
export const deleteReceiver = async (db: Database, { id, ...within }: Within & { id: string }): Promise<void> => {
  const off = await db.$executeRawUnsafe(`UPDATE receivers r SET enabled = false WHERE r.id = $4 AND ${WITHIN}`, ...scopeOf(within), id)
  if (off === 0) throw new CurfewError('receiver_not_found')
  let removed: number
  do {
    removed = await db.$executeRawUnsafe('DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries WHERE receiver_id = $1 LIMIT $2)', id, DELETE_SLICE)
  } while (removed === DELETE_SLICE)
  await db.$executeRawUnsafe(`DELETE FROM receivers r WHERE r.id = $4 AND ${WITHIN}`, ...scopeOf(within), id)
}
