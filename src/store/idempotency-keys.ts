/**
 * Idempotency keys: a repeat of what was accepted under the same key, by the same caller at the same route, is told the
 * same revocation. A key is claimed in the transaction that accepts, so it is there if and only if the revocation is.
 */
import type { Actor } from '../model.ts'
import type { Database } from './postgres.ts'
import type { Pruned } from './pruning.ts'
import type { RevocationTransaction } from './revocations.ts'

/** After that a key may be used for something else. */
export const KEPT_SECONDS = 86_400

export interface IdempotencyKey {
  readonly actor: Actor
  readonly route: string
  readonly key: string
}

/** What a key stands for. */
export interface IdempotentAnswer {
  readonly requestHash: Buffer
  readonly revocationId: string
}

/** What this key stands for already, or null. */
export const readIdempotencyKey = async (db: RevocationTransaction, { actor, route, key }: IdempotencyKey): Promise<IdempotentAnswer | null> => {
  const [row] = await db.$queryRawUnsafe<{ requestHash: Uint8Array; revocationId: string }[]>(
    `SELECT request_hash AS "requestHash", revocation_id::text AS "revocationId" FROM idempotency_keys
     WHERE issuer = $1 AND subject = $2 AND route = $3 AND key = $4 AND created_at > clock_timestamp() - make_interval(secs => ${KEPT_SECONDS})`,
    actor.issuer, actor.subject, route, key,
  )
  return row === undefined ? null : { requestHash: Buffer.from(row.requestHash), revocationId: row.revocationId }
}

/**
 * Claims a key, waiting for whoever claims it at this moment. Part of the caller's transaction.
 *
 * @returns false where it stands for something already: `readIdempotencyKey` says for what.
 */
export const claimIdempotencyKey = async (
  tx: RevocationTransaction,
  { actor, route, key, requestHash, revocationId }: IdempotencyKey & IdempotentAnswer,
): Promise<boolean> => {
  const claimed = await tx.$queryRawUnsafe<unknown[]>(
    `INSERT INTO idempotency_keys AS k (issuer, subject, route, key, request_hash, revocation_id)
     VALUES ($1, $2, $3, $4, $5, $6::text::uuid)
     ON CONFLICT (issuer, subject, route, key) DO UPDATE
       SET request_hash = excluded.request_hash, revocation_id = excluded.revocation_id, created_at = excluded.created_at
       WHERE k.created_at <= clock_timestamp() - make_interval(secs => ${KEPT_SECONDS})
     RETURNING 1 AS claimed`,
    actor.issuer, actor.subject, route, key, requestHash, revocationId,
  )
  return claimed.length === 1
}

/** Keys forgotten by one statement: some ten milliseconds. */
const AT_ONCE = 5_000

/** Forgets keys whose time is over, in bounded steps as in `pruning.ts`. May be run by several at once. */
export const pruneIdempotencyKeys = async (db: Pick<Database, '$executeRawUnsafe'>): Promise<Pruned> => {
  const removed = await db.$executeRawUnsafe(
    `DELETE FROM idempotency_keys WHERE ctid = ANY(ARRAY(
       SELECT ctid FROM idempotency_keys WHERE created_at <= clock_timestamp() - make_interval(secs => ${KEPT_SECONDS})
       ORDER BY created_at LIMIT ${AT_ONCE} FOR UPDATE SKIP LOCKED))`,
  )
  return { removed, next: removed === AT_ONCE ? '' : null }
}
