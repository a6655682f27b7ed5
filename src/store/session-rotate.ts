/**
 * Answers registrations whose id is taken, under the rows' locks (taken in id order): the identical registration of
 * a live session gets a new token and a `session.token.rotated`, everything else a refusal that says why.
 */
import type { ErrorName } from '../errors.ts'
import type { Actor } from '../model.ts'
import type { Database } from './postgres.ts'
import { hex } from './session-add.ts'
import type { Numbered } from './session-add.ts'
import { wireTime } from './wire-time.ts'

const ROTATE = `
WITH asked AS MATERIALIZED (
  SELECT * FROM jsonb_to_recordset($1::jsonb) AS r(n int, id text, hash text, token_hash text)
), locked AS MATERIALIZED (
  SELECT s.id, s.state, s.issuer, s.resource_owner, s.user_id, s.born, s.issuer = ANY($2::text[]) AS ours, s.registration_hash
  FROM sessions s JOIN asked a ON a.id = s.id
  ORDER BY s.id
  FOR NO KEY UPDATE OF s
), judged AS MATERIALIZED (
  SELECT a.n, a.id, a.token_hash, CASE
      WHEN NOT l.ours THEN 'session_exists'
      WHEN l.state = 'terminated' THEN 'session_terminated'
      WHEN cutoff_rule_of(l.issuer, l.resource_owner, l.user_id, l.id, l.born) IS NOT NULL THEN 'born_under_rule'
      WHEN l.registration_hash <> decode(a.hash, 'hex') THEN 'session_exists'
    END AS refusal
  FROM asked a JOIN locked l ON l.id = a.id
), rotated AS (
  UPDATE sessions s
  SET token_hash = decode(j.token_hash, 'hex'), sequence = s.sequence + 1,
      change_date = greatest(date_trunc('milliseconds', clock_timestamp()), s.change_date)
  FROM judged j WHERE s.id = j.id AND j.refusal IS NULL
  RETURNING s.id, s.sequence, s.change_date, s.resource_owner
), told AS (
  INSERT INTO session_events (session_id, sequence, type, actor_issuer, actor_subject, resource_owner, created_at)
  SELECT r.id, r.sequence, 'session.token.rotated', $3, $4, r.resource_owner, r.change_date FROM rotated r
)
SELECT j.n, j.refusal, r.sequence::text AS sequence, ${wireTime('r.change_date')} AS change_date
FROM judged j LEFT JOIN rotated r ON r.id = j.id`

export interface RotateAnswer {
  /** Position in the call. */
  readonly n: number
  readonly refusal: Extract<ErrorName, 'session_exists' | 'session_terminated'> | 'born_under_rule' | null
  readonly sequence: string
  readonly change_date: string
}

/**
 * Rotates the tokens of those that are identical and live; answers for each whose row exists, in any order.
 * A session of an issuer that the writer does not speak for is only said to exist. Not idempotent: each call is
 * a new token, and the last one is good.
 */
export const rotateTokens = (
  db: Pick<Database, '$queryRawUnsafe'>,
  { actor, issuers, asked }: { actor: Actor; issuers: readonly string[]; asked: readonly Numbered[] },
): Promise<RotateAnswer[]> => {
  const rows = asked.map(({ n, registration: { id, hash, tokenHash } }) => ({ n, id, hash: hex(hash), token_hash: hex(tokenHash) }))
  return db.$queryRawUnsafe(ROTATE, JSON.stringify(rows), issuers, actor.issuer, actor.subject)
}
