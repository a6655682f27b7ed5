/**
 * How often what is dead was still tried: by terminated session, and by cutoff rule for whatever that rule kills; each
 * belongs to the revocation that ended the session or set the rule. What was reported for neither is not kept, so there are never more rows than dead sessions and rules.
 */
import type { Database } from './postgres.ts'
import { wireTime } from './wire-time.ts'

/** What was tried: a terminated session, or something that a rule kills; `id` is the session's (reported: or a sid of it) or the rule's. */
export interface DeadTarget {
  readonly by: 'session' | 'rule'
  readonly id: string
}

export interface DeadUse extends DeadTarget {
  readonly issuer: string
  readonly count: number
}

// In the order of the key, so that two reports of the same do not deadlock. A guard names a session as the token does, and
// so perhaps by a participant's sid: it is counted under the session's id.
const RECORD = `
INSERT INTO dead_uses AS d (issuer, target, target_id, uses, first_at, last_at, revocation_id)
SELECT n.issuer, n.target, n.id, sum(n.uses), min(c.at), min(c.at), CASE n.target
  WHEN 'session' THEN (
    SELECT e.revocation_id FROM session_events e WHERE e.session_id = n.id AND e.type = 'session.terminated' ORDER BY e.sequence DESC LIMIT 1)
  ELSE (SELECT r.revocation_id FROM cutoff_rules r WHERE r.id = n.id::uuid) END
FROM (
  SELECT a.issuer, a.target, a.uses, CASE a.target
    WHEN 'session' THEN coalesce(
      (SELECT s.id FROM sessions s WHERE s.id = a.target_id AND s.issuer = a.issuer AND s.state = 'terminated'),
      (SELECT s.id FROM session_clients k JOIN sessions s ON s.id = k.session_id
       WHERE k.sid = a.target_id AND s.issuer = a.issuer AND s.state = 'terminated' LIMIT 1))
    ELSE (SELECT r.id::text FROM cutoff_rules r WHERE r.id = a.target_id::uuid AND r.issuer = a.issuer) END AS id
  FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS a(issuer, target, target_id, uses)
  WHERE $5::text[] IS NULL OR a.issuer = ANY ($5::text[])
  OFFSET 0
) n CROSS JOIN (SELECT date_trunc('milliseconds', clock_timestamp()) AS at) c
WHERE n.id IS NOT NULL
GROUP BY n.issuer, n.target, n.id
ORDER BY n.target, n.id COLLATE "C", n.issuer
ON CONFLICT (target, target_id, issuer) DO UPDATE
SET uses = d.uses + excluded.uses, last_at = greatest(d.last_at, excluded.last_at)`

const isStorable = ({ by, id, issuer }: DeadUse): boolean =>
  !`${id}${issuer}`.includes('\0') && (by === 'session' || /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(id))

/**
 * Adds to the counts. Not idempotent: a report that is repeated counts twice.
 *
 * @param issuers whose the reporter may speak of; null: all.
 */
export const recordDeadUses = async (db: Database, { uses, issuers }: { uses: readonly DeadUse[]; issuers: readonly string[] | null }): Promise<void> => {
  const good = uses.filter(isStorable)
  if (good.length === 0) return
  await db.$executeRawUnsafe(
    RECORD,
    good.map(({ issuer }) => issuer),
    good.map(({ by }) => by),
    good.map(({ by, id }) => (by === 'rule' ? id.toLowerCase() : id)),
    good.map(({ count }) => count),
    issuers,
  )
}

export interface DeadUseCount {
  readonly issuer: string
  /** A 64-bit number. */
  readonly count: string
  /** RFC 3339 UTC. */
  readonly firstDate: string
  readonly lastDate: string
}

/** The counts of one session or rule, of each of these issuers where there is one. */
export const readDeadUses = (db: Database, { by, id, issuers }: DeadTarget & { issuers: readonly string[] }): Promise<DeadUseCount[]> =>
  db.$queryRawUnsafe<DeadUseCount[]>(
    `SELECT d.issuer, d.uses::text AS count, ${wireTime('d.first_at')} AS "firstDate", ${wireTime('d.last_at')} AS "lastDate"
     FROM dead_uses d WHERE d.target = $1 AND d.target_id = $2 AND d.issuer = ANY ($3::text[]) ORDER BY d.issuer`,
    by, by === 'rule' ? id.toLowerCase() : id, issuers,
  )

/** The sums over the sessions that a revocation ended and the rules that it set, of each of these issuers where there are any. */
export const readDeadUsesOfRevocation = (db: Database, { revocationId, issuers }: { revocationId: string; issuers: readonly string[] }): Promise<DeadUseCount[]> =>
  db.$queryRawUnsafe<DeadUseCount[]>(
    `SELECT d.issuer, sum(d.uses)::text AS count, ${wireTime('min(d.first_at)')} AS "firstDate", ${wireTime('max(d.last_at)')} AS "lastDate"
     FROM dead_uses d WHERE d.revocation_id = $1::text::uuid AND d.issuer = ANY ($2::text[]) GROUP BY d.issuer ORDER BY d.issuer`,
    revocationId, issuers,
  )

/** Forgets up to `limit` counts that have not grown for the retention. Returns how many. */
export const pruneDeadUses = (db: Database, { retentionSeconds, limit }: { retentionSeconds: number; limit: number }): Promise<number> =>
  db.$executeRawUnsafe(
    `DELETE FROM dead_uses WHERE ctid IN (
       SELECT ctid FROM dead_uses WHERE last_at < clock_timestamp() - make_interval(secs => $1::float8)
       ORDER BY last_at LIMIT $2 FOR UPDATE SKIP LOCKED)`,
    retentionSeconds, limit,
  )
