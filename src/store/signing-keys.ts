/**
 * Signing keys of issuers: at most one `current` and one `next` for each issuer and algorithm (partial unique
 * indexes), any number `retired`. Private keys are ciphertexts here; only `channels/signing.ts` opens them.
 *
 * Changes to an issuer's keys are serialised by an advisory lock, so that two operators cannot both promote.
 */
import type { JWK } from 'jose'
import type { Database } from './postgres.ts'

export type SigningKeyState = 'next' | 'current' | 'retired'

export interface SigningKeyRow {
  /** The `kid`. */
  readonly id: string
  readonly issuer: string
  readonly alg: string
  readonly state: SigningKeyState
  readonly publicJwk: JWK
  readonly privateKey: string
  readonly imported: boolean
  readonly createdAt: Date
  readonly activatedAt: Date | null
  readonly retiredAt: Date | null
}

export type NewSigningKey = Pick<SigningKeyRow, 'id' | 'issuer' | 'alg' | 'publicJwk' | 'privateKey' | 'imported'>

const COLUMNS = `id, issuer, alg, state::text AS state, public_jwk AS "publicJwk", private_key AS "privateKey", imported,
  created_at AS "createdAt", activated_at AS "activatedAt", retired_at AS "retiredAt"`

const INSERT = `
INSERT INTO signing_keys (id, issuer, alg, state, public_jwk, private_key, imported, activated_at)
VALUES ($1, $2, $3, $4::text::signing_key_state, $5::text::jsonb, $6, $7, CASE WHEN $4 = 'current' THEN clock_timestamp() END)`

const RETIRE = `UPDATE signing_keys SET state = 'retired', retired_at = clock_timestamp() WHERE issuer = $1 AND alg = $2 AND state = 'current' AND id <> $3`

const insertOf = (key: NewSigningKey, state: SigningKeyState): [string, string, string, string, string, string, boolean] =>
  [key.id, key.issuer, key.alg, state, JSON.stringify(key.publicJwk), key.privateKey, key.imported]

/** The key that signs for this issuer and algorithm now, or null. */
export const readCurrentKey = async (db: Database, issuer: string, alg: string): Promise<SigningKeyRow | null> => {
  const [row] = await db.$queryRawUnsafe<SigningKeyRow[]>(
    `SELECT ${COLUMNS} FROM signing_keys WHERE issuer = $1 AND alg = $2 AND state = 'current'`, issuer, alg,
  )
  return row ?? null
}

/** The keys of one issuer, or of all (null), newest first: at most 1,000, far more than operators keep. */
export const readSigningKeys = (db: Database, issuer: string | null): Promise<SigningKeyRow[]> =>
  db.$queryRawUnsafe<SigningKeyRow[]>(
    `SELECT ${COLUMNS} FROM signing_keys WHERE $1::text IS NULL OR issuer = $1 ORDER BY issuer, alg, created_at DESC LIMIT 1000`, issuer,
  )

/** What relying parties may meet a signature of: next, current, and what retired within `retiredSeconds`. */
export const readPublishedKeys = (db: Database, issuer: string, retiredSeconds: number): Promise<{ publicJwk: JWK }[]> =>
  db.$queryRawUnsafe<{ publicJwk: JWK }[]>(
    `SELECT public_jwk AS "publicJwk" FROM signing_keys
     WHERE issuer = $1 AND (state <> 'retired' OR retired_at > now() - make_interval(secs => $2::float8)) ORDER BY created_at DESC LIMIT 100`,
    issuer, retiredSeconds,
  )

/** Writes a key in a state that nobody holds yet; false where another holds it, and then nothing is written. */
export const insertKey = async (db: Database, key: NewSigningKey, state: 'current' | 'next'): Promise<boolean> =>
  (await db.$executeRawUnsafe(`${INSERT} ON CONFLICT DO NOTHING`, ...insertOf(key, state))) === 1

/**
 * Makes a key current, written new or back from another state, and encrypted as it is given; the one before it retires.
 * One transaction, may be repeated.
 */
export const makeCurrent = async (db: Database, key: NewSigningKey): Promise<void> => {
  await db.$transaction([
    db.$queryRawUnsafe('SELECT pg_advisory_xact_lock(hashtext($1))::text', `curfew signing keys ${key.issuer}`),
    db.$executeRawUnsafe(RETIRE, key.issuer, key.alg, key.id),
    db.$executeRawUnsafe(
      `${INSERT} ON CONFLICT (id) DO UPDATE SET state = 'current', retired_at = NULL, private_key = excluded.private_key,
         activated_at = CASE WHEN signing_keys.state = 'current' THEN signing_keys.activated_at ELSE clock_timestamp() END
       WHERE signing_keys.issuer = excluded.issuer`,
      ...insertOf(key, 'current'),
    ),
  ])
}

/** `$1` is the key, `$2` the seconds for which it must have been published. `now()` is the same for both statements. */
const RIPE = `n.id = $1 AND n.state = 'next' AND n.created_at <= now() - make_interval(secs => $2::float8)`
const RETIRE_FOR_RIPE = `
UPDATE signing_keys SET state = 'retired', retired_at = clock_timestamp()
WHERE issuer = $3 AND alg = $4 AND state = 'current' AND EXISTS (SELECT FROM signing_keys n WHERE ${RIPE})`
const PROMOTE_RIPE = `UPDATE signing_keys n SET state = 'current', activated_at = clock_timestamp() WHERE ${RIPE}`

/**
 * Promotes the next key, if `kid` still is it and was published for long enough; the current one retires. Returns whether
 * it is current now. One transaction, may be repeated.
 */
export const promoteKey = async (
  db: Database,
  { issuer, alg, kid, publishedSeconds }: { issuer: string; alg: string; kid: string; publishedSeconds: number },
): Promise<boolean> => {
  await db.$transaction([
    db.$queryRawUnsafe('SELECT pg_advisory_xact_lock(hashtext($1))::text', `curfew signing keys ${issuer}`),
    db.$executeRawUnsafe(RETIRE_FOR_RIPE, kid, publishedSeconds, issuer, alg),
    db.$executeRawUnsafe(PROMOTE_RIPE, kid, publishedSeconds),
  ])
  return (await readKey(db, kid))?.state === 'current'
}

/** One key by its id, whoever's it is. */
export const readKey = async (db: Database, id: string): Promise<SigningKeyRow | null> => {
  const [row] = await db.$queryRawUnsafe<SigningKeyRow[]>(`SELECT ${COLUMNS} FROM signing_keys WHERE id = $1`, id)
  return row ?? null
}
