/**
 * What is known of a statement that failed: whether it can have changed anything, and whether Postgres can be had at all.
 * Read from SQLSTATEs and error codes; from an error's words only where a driver says no more.
 */

/** Refused while it ran, or before: a connection refused by its kind (28, 3D, 53, 57P03) has not even been asked. */
const definite = /^(22|23|25006|28|3D|40001|40P01|42|53|55P03|57014|57P03|P0)/

/** Our pool's words and Prisma's; the pool's two are for a line to it that is too long and for a host that says nothing. */
const notConnected =
  /ECONNREFUSED|ENOTFOUND|EAI_AGAIN|timeout exceeded when trying to connect|terminated due to connection timeout|DatabaseNotReachable|Can't reach database/i

/**
 * Says whether a failed statement certainly changed nothing. Everything that is not certain (a lost reply, a cut
 * connection) is of unknown outcome, to be settled by reading or repeating, never by guessing.
 */
export const changedNothing = (error: unknown): boolean => {
  const code = sqlState(error)
  return code === undefined ? cannotConnect(error) : definite.test(code)
}

/** True where no connection could be made, so nothing was sent. */
export const cannotConnect = (error: unknown): boolean => {
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    if (notConnected.test(`${at.message} ${String((at as { code?: unknown }).code)}`)) return true
  }
  return false
}

/** Classes of SQLSTATE that say "not now": connection, read-only, log-in, resources, operator, time-outs, conflicts. */
const transientState = /^(08|25006|28|3D|53|57P|57014|55P03|40001|40P01)/

const lostConnection =
  /Connection terminated|connection error|did not answer in time|Connection ended|ECONNRESET|P1001|P1017|P2024|P2028/i

/** Kinds of the driver adapter's errors that carry no SQLSTATE. */
const lostKinds: ReadonlySet<unknown> = new Set(['ConnectionClosed', 'SocketTimeout'])

/** True where the same statement may well succeed a little later: Postgres is away, busy, or cut the connection. */
export const isPostgresAway = (error: Error): boolean => {
  const state = sqlState(error)
  if (state !== undefined) return transientState.test(state)
  const { code, meta } = error as { code?: unknown; meta?: { driverAdapterError?: { cause?: { kind?: unknown } } } }
  return cannotConnect(error) || lostKinds.has(meta?.driverAdapterError?.cause?.kind) || lostConnection.test(`${String(code)} ${error.message}`)
}

/** The SQLSTATE inside a Prisma or pg error, if it carries one. */
export const sqlState = (error: unknown): string | undefined => {
  if (typeof error !== 'object' || error === null) return undefined
  const { code, meta, cause } = error as {
    code?: unknown
    meta?: { driverAdapterError?: { cause?: { originalCode?: unknown } } }
    cause?: { originalCode?: unknown }
  }
  const found = meta?.driverAdapterError?.cause?.originalCode ?? cause?.originalCode ?? code
  return typeof found === 'string' && /^[0-9A-Z]{5}$/.test(found) && !/^P[12]\d{3}$/.test(found) ? found : undefined
}
