/**
 * Connections to Postgres: one Prisma client over one bounded pool.
 *
 * Lock order, for every statement in this folder: sessions in id order, then receivers, then deliveries.
 * Statements are named by the hash of their text, so that Postgres plans each once and keeps a generic plan
 * (a custom plan turns a batch of 500 on a small table into sequential scans).
 *
 * A connection that does not answer within `deadlineMs` is destroyed, not returned: whatever it was doing has
 * an unknown outcome, and the next borrower must not inherit it (Postgres itself stops a statement before that).
 */
import { createHash } from 'node:crypto'
import { PrismaPg } from '@prisma/adapter-pg'
import pg from 'pg'
import { PrismaClient } from './generated/client.ts'

export interface DatabaseOptions {
  readonly url: string
  /** Shown as application_name: `curfew-<name>`. */
  readonly name: string
  /** Connections at most. */
  readonly max: number
  readonly statementTimeoutMs?: number
  readonly lockTimeoutMs?: number
  /** Called for an error on an idle connection; the pool replaces it by itself. */
  readonly onIdleError?: (error: Error) => void
}

export type Database = PrismaClient

const DEADLINE_SLACK_MS = 1_500

/** How often a client that listens makes sure that somebody is there who could tell it something. */
const LISTENER_ASKS_EVERY_MS = 5_000

/**
 * A client (for a pool) whose unanswered query ends the connection instead of poisoning the pool. One that listens asks
 * now and then: else it would never notice that its peer has vanished.
 */
export const deadlineClient = (deadlineMs: number): (new () => pg.Client) =>
  class DeadlineClient extends pg.Client {
    #timer: NodeJS.Timeout | undefined
    #asking: NodeJS.Timeout | undefined

    constructor(config?: pg.ClientConfig) {
      super(config)
      this.on('drain', () => this.#rest())
      this.on('end', () => {
        this.#rest()
        clearInterval(this.#asking)
      })
    }

    override query(...args: unknown[]): never {
      clearTimeout(this.#timer)
      this.#timer = setTimeout(() => this.#destroy(), deadlineMs)
      const [text] = args
      if (typeof text === 'string' && /^LISTEN /m.test(text)) this.#asking ??= setInterval(() => this.#ask(), LISTENER_ASKS_EVERY_MS)
      return (super.query as (...args: unknown[]) => unknown).apply(this, args) as never
    }

    #rest(): void {
      clearTimeout(this.#timer)
      this.#timer = undefined
    }

    #ask(): void {
      // While something is unanswered, its deadline runs. It ends the connection, which is told as its error.
      if (this.#timer === undefined) this.query('SELECT 1', () => undefined)
    }

    #destroy(): void {
      const { stream } = (this as unknown as { connection: { stream: { destroy(error: Error): void } } }).connection
      stream.destroy(new Error('Postgres did not answer in time; the outcome is unknown'))
    }
  }

/** Opens a pool and the Prisma client over it. Connects on first use. Close with `$disconnect()`. */
export const openDatabase = (options: DatabaseOptions): Database => {
  const statementTimeoutMs = options.statementTimeoutMs ?? 3_000
  const lockTimeoutMs = options.lockTimeoutMs ?? 1_000
  const pool = new pg.Pool({
    connectionString: options.url,
    application_name: `curfew-${options.name}`,
    max: options.max,
    connectionTimeoutMillis: 2_000,
    idleTimeoutMillis: 30_000,
    keepAlive: true,
    options: [
      `-c statement_timeout=${statementTimeoutMs}`,
      `-c lock_timeout=${lockTimeoutMs}`,
      '-c idle_in_transaction_session_timeout=5000',
      '-c plan_cache_mode=force_generic_plan',
      // A plan made while a table was small must not keep reading it whole when it is large; compiling never pays here.
      '-c enable_seqscan=off',
      '-c jit=off',
      '-c timezone=UTC',
    ].join(' '),
    Client: deadlineClient(statementTimeoutMs + DEADLINE_SLACK_MS),
  })
  pool.on('error', (error) => options.onIdleError?.(error))
  const adapter = new PrismaPg(pool, {
    disposeExternalPool: true,
    statementNameGenerator: ({ sql }) => createHash('sha1').update(sql).digest('base64url').slice(0, 20),
  })
  return new PrismaClient({ adapter, transactionOptions: { maxWait: 2_000, timeout: 5_000 } })
}

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
