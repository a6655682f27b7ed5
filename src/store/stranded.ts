/**
 * What upkeep looks for: commits that were not handed on, receivers that something is due for and nobody drains,
 * deliveries that nobody will try any more. Everything is bounded, may be repeated, and may be run by all at once.
 */
import { HORIZON_FROM } from './deliveries.ts'
import type { Database } from './postgres.ts'

/** Counted at most: beyond this the exact number no longer matters to anyone who watches, and counting would cost. */
const MAX_COUNTED = 1_000_000

const WATCH = `
SELECT
  (SELECT coalesce(max(age), 0) FROM (SELECT extract(epoch FROM clock_timestamp() - committed_at) AS age FROM commits
     WHERE routed_at IS NULL AND revocation_id IS NULL ORDER BY id LIMIT 100) u)::float8 AS "unroutedSeconds",
  (SELECT coalesce(max(age), 0) FROM (SELECT extract(epoch FROM clock_timestamp() - committed_at) AS age FROM commits
     WHERE routed_at IS NULL AND revocation_id IS NOT NULL ORDER BY revocation_id, id LIMIT 100) u)::float8 AS "revocationsUnroutedSeconds",
  (SELECT coalesce(max(age), 0) FROM (SELECT extract(epoch FROM clock_timestamp() - coalesce(retold_at, committed_at)) AS age FROM commits
     WHERE enforced_at IS NULL ORDER BY id LIMIT 100) e)::float8 AS "unenforcedSeconds"`

export interface OldestCommits {
  /** Of log-outs. */
  readonly unroutedSeconds: number
  readonly revocationsUnroutedSeconds: number
  readonly unenforcedSeconds: number
}

/** Ages of the oldest commits not routed and not enforced, in seconds; 0 where there is none. */
export const readOldestCommits = async (db: Database): Promise<OldestCommits> => {
  const [row] = await db.$queryRawUnsafe<OldestCommits[]>(WATCH)
  return row ?? { unroutedSeconds: 0, revocationsUnroutedSeconds: 0, unenforcedSeconds: 0 }
}

/** What is pending lies in two indexes, of log-outs and of revocations: deliveries_due and deliveries_of_revocations_due. */
const pendingOf = (parts: (which: string) => string): string =>
  ['revocation_id IS NULL', 'revocation_id IS NOT NULL'].map((which) => `(${parts(`state = 'pending' AND ${which}`)})`).join(' UNION ALL ')

/** Pending deliveries, counted up to a million. */
export const countPending = async (db: Database): Promise<number> => {
  const [row] = await db.$queryRawUnsafe<{ pending: number }[]>(
    `SELECT count(*)::int AS pending FROM (${pendingOf((which) => `SELECT FROM deliveries WHERE ${which} LIMIT ${MAX_COUNTED}`)} LIMIT ${MAX_COUNTED}) p`,
  )
  return row?.pending ?? 0
}

const nextReceiver = (after: string): string => `SELECT min(n.receiver_id) AS receiver_id FROM (${pendingOf((which) =>
  `SELECT receiver_id FROM deliveries WHERE ${which} AND receiver_id > ${after} ORDER BY receiver_id LIMIT 1`)}) n`

// Hops along both indexes from receiver to receiver, so it costs the receivers that have something pending, not
// the deliveries.
const DUE_RECEIVERS = `
WITH RECURSIVE hop AS (
  ${nextReceiver('$1')}
  UNION ALL
  SELECT (${nextReceiver('h.receiver_id')}) FROM hop h WHERE h.receiver_id IS NOT NULL
)
SELECT h.receiver_id AS id,
  (r.enabled AND (r.drained_until IS NULL OR r.drained_until <= now()) AND (r.broken_until IS NULL OR r.broken_until <= now())
    AND EXISTS (${pendingOf((which) => `SELECT FROM deliveries WHERE ${which} AND receiver_id = h.receiver_id AND due_at <= now() LIMIT 1`)})) AS due
FROM (SELECT receiver_id FROM hop WHERE receiver_id IS NOT NULL LIMIT $2) h JOIN receivers r ON r.id = h.receiver_id
ORDER BY h.receiver_id`

export interface DueReceivers {
  readonly ids: readonly string[]
  /** Where to go on, or null: the last was seen. */
  readonly next: string | null
}

/** Looks at up to `limit` receivers with pending deliveries after the id `after` ('' for the first). */
export const readDueReceivers = async (db: Database, { after, limit }: { after: string; limit: number }): Promise<DueReceivers> => {
  const rows = await db.$queryRawUnsafe<{ id: string; due: boolean }[]>(DUE_RECEIVERS, after, limit)
  return {
    ids: rows.flatMap(({ id, due }) => (due ? [id] : [])),
    next: rows.length < limit ? null : (rows.at(-1)?.id ?? null),
  }
}

/** Of each receiver, its oldest so many are looked at; the rest follow once these are settled. */
const OLDEST_OF_EACH = 1_000

// A receiver that is broken tries one delivery at a time, and one that is off tries none: what is past its time would
// stay pending for ever. A paused receiver's deliveries pass the horizon without an attempt, so that is no failure.
const SETTLE = `
WITH stranded AS (
  SELECT o.id, o.moot_at <= now() AS moot
  FROM receivers r CROSS JOIN LATERAL (
    SELECT d.id, d.moot_at, d.due_at, ${HORIZON_FROM} AS since FROM deliveries d
    WHERE d.receiver_id = r.id AND d.state = 'pending' ORDER BY d.id LIMIT ${OLDEST_OF_EACH}) o
  WHERE (NOT r.enabled OR r.broken_until > now())
    AND (o.moot_at <= now() OR (r.enabled AND o.due_at < 'infinity' AND o.since + make_interval(secs => $1::float8) <= now()))
  LIMIT $2
), held AS (
  SELECT d.id, s.moot FROM deliveries d JOIN stranded s ON s.id = d.id WHERE d.state = 'pending' ORDER BY d.id FOR NO KEY UPDATE OF d SKIP LOCKED
)
UPDATE deliveries d SET
  state = CASE WHEN h.moot THEN 'moot' ELSE 'failed' END::delivery_state, done_at = now(),
  last_outcome = CASE WHEN h.moot THEN 'moot' ELSE coalesce(d.last_outcome, 'not_tried') END
FROM held h WHERE d.id = h.id`

/**
 * Settles deliveries that nobody will try in time: past all use they are moot, past the horizon of a receiver
 * whose breaker is open they are dead letters. Returns how many; fewer than `limit` means there are no more now.
 */
export const settleStranded = (db: Database, { horizonSeconds, limit }: { horizonSeconds: number; limit: number }): Promise<number> =>
  db.$executeRawUnsafe(SETTLE, horizonSeconds, limit)
