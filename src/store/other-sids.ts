/**
 * The sids by which participants know a session where they are not its id: relying parties' tokens carry those. Where
 * nobody is told another sid than the session's id, the index that this relies on is empty, and asking costs next to
 * nothing. Relies on session_clients_named_otherwise.
 */

/** An array, as SQL, of what the statement's snapshot shows. @param id an SQL expression: the session's. */
export const otherSids = (id: string): string =>
  `ARRAY(SELECT DISTINCT c.sid FROM session_clients c WHERE c.session_id = ${id} AND c.sid <> c.session_id)`

/** Whoever wrote before this transaction, of the 32 bits that a row carries, has ended, and the snapshot shows it. */
const OLDEST_WRITER = '(SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint & 4294967295)'

/** What `otherSidsOfLocked` is to be given as the writer, read together with the lock. @param s the table, as it is named. */
export const writerOf = (s: string): string => `${s}.xmin::text::bigint`

/**
 * The same for a session that the statement has locked, as of the lock: a participant that joined when the snapshot was
 * taken already has changed the session's row as well, and is looked for anew, which costs some microseconds more.
 */
export const otherSidsOfLocked = ({ id, writer }: { id: string; writer: string }): string =>
  `CASE WHEN (${writer} - ${OLDEST_WRITER}) & 4294967295 < 2147483648 THEN other_sids_of(${id}) ELSE ${otherSids(id)} END`
