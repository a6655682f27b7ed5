/**
 * The sids by which participants know a session where they are not its id: relying parties' tokens carry those. Where
 * nobody is told another sid than the session's id, the index that this relies on is empty, and asking costs next to
 * nothing. Relies on session_clients_named_otherwise.
 */

/** An array, as SQL. @param sessionId an SQL expression. */
export const otherSids = (sessionId: string): string =>
  `ARRAY(SELECT DISTINCT c.sid FROM session_clients c WHERE c.session_id = ${sessionId} AND c.sid <> c.session_id)`
