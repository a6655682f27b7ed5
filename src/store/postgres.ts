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
 * A client (for a pool) whose unanswered query ends the connection instead of poisoning the pool, and whose end is nobody
 * else's. One that listens asks now and then: else it would never notice that its peer has vanished.
 */
export const deadlineClient = (deadlineMs: number): (new (config?: pg.ClientConfig) => pg.Client) =>
  class DeadlineClient extends pg.Client {
    #timer: NodeJS.Timeout | undefined
    #asking: NodeJS.Timeout | undefined

    /**
     * All that is to happen by itself happens here and not in listeners: BullMQ takes all listeners off a client before it
     * gives it back. Its borrower learns of its end by its query, or by the next. Nobody listens between two borrowers'
     * turns, and an error that nobody listens to would end the process.
     */
    override emit(event: string | symbol, ...args: unknown[]): boolean {
      if (event === 'drain' || event === 'end') this.#rest()
      if (event === 'end') clearInterval(this.#asking)
      if (event === 'error' && this.listenerCount('error') === 0) return false
      return (super.emit as (event: string | symbol, ...args: unknown[]) => boolean).call(this, event, ...args)
    }

    override query(...args: unknown[]): never {
      this.#expect()
      const [text] = args
      if (typeof text === 'string' && /^LISTEN /m.test(text)) this.#asking ??= setInterval(() => this.#ask(), LISTENER_ASKS_EVERY_MS).unref()
      return (super.query as (...args: unknown[]) => unknown).apply(this, args) as never
    }

    override end(...args: unknown[]): never {
      clearInterval(this.#asking)
      // Also its goodbye is answered in time, or it goes without.
      this.#expect()
      return (super.end as (...args: unknown[]) => unknown).apply(this, args) as never
    }

    /** Timers keep no process alive: while an answer may come, the socket does. */
    #expect(): void {
      clearTimeout(this.#timer)
      this.#timer = setTimeout(() => this.#destroy(), deadlineMs).unref()
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

/** One connection for the time of `use`, for migrations. Its loss fails the statement that runs, and nothing else. */
export const withClient = async <T>(url: string, use: (client: pg.Client) => Promise<T>): Promise<T> => {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5_000, application_name: 'curfew-migrate' })
  client.on('error', () => undefined)
  await client.connect()
  try {
    return await use(client)
  } finally {
    await client.end()
  }
}
