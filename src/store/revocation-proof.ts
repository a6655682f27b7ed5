/**
 * The pass that finds nothing: all that a revocation walks, seen in one snapshot, so that nothing can slip by moving from
 * what is still to be looked at to what was (an expiry that is changed moves a session in the index).
 *
 * Before it, everyone who was writing sessions has ended: whoever registers sessions judges them by the rules, and dates
 * them, after locking the table, so what they began earlier is in the snapshot and what they begin later is refused by
 * the rule, or born later than the cutoff.
 */
import { Prisma } from './generated/client.ts'
import type { RevocationScope } from '../model.ts'
import type { Database } from './postgres.ts'
import { matchingSessions } from './revocation-filter.ts'
import { entriesOf, keyOf } from './revocation-walk.ts'
import type { Walk } from './revocation-walk.ts'
import { createStatement } from './statement.ts'

const WRITERS = `
SELECT l.virtualtransaction FROM pg_locks l
WHERE l.locktype = 'relation' AND l.relation = 'sessions'::regclass AND l.mode = 'RowExclusiveLock' AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())`

/** Transactions that may be writing sessions now. */
export const readWriters = async (db: Database): Promise<string[]> =>
  (await db.$queryRawUnsafe<{ virtualtransaction: string }[]>(WRITERS)).map(({ virtualtransaction }) => virtualtransaction)

/** How many of these have not ended. A transaction's name is not given twice. */
export const stillWriting = async (db: Database, writers: readonly string[]): Promise<string[]> => {
  const now = new Set(await readWriters(db))
  return writers.filter((writer) => now.has(writer))
}

interface Look {
  readonly left: boolean
  readonly entries: number
  readonly last: readonly string[] | null
}

const look = async (
  db: Pick<Database, '$queryRawUnsafe'>,
  { scope, walk, most, after }: { scope: RevocationScope; walk: Walk; most: number; after: readonly string[] },
): Promise<Look> => {
  const { values, next } = createStatement()
  const walked = entriesOf(walk, next, { match: matchingSessions(scope, next, walk.kind), most: `${next(most)}::int`, after: `${next(after)}::text[]` })
  const [row] = await db.$queryRawUnsafe<Look[]>(
    `WITH stretch AS MATERIALIZED (SELECT e.*, row_number() OVER () AS at FROM (${walked}) e)
     SELECT coalesce(bool_or(live), false) AS left, count(*)::int AS entries,
       (SELECT ${keyOf(walk, 'e')} FROM stretch e WHERE e.at = (SELECT max(at) FROM stretch)) AS last FROM stretch`,
    ...values,
  )
  if (row === undefined) throw new Error('A look returned no row')
  return row
}

/** Longer than any walk takes; a snapshot that is held longer keeps too much from being vacuumed. */
const TRANSACTION_MS = 3_600_000
/** Between two statements others may go first, many of them. */
const IDLE_MS = 60_000

export interface ProofAsked {
  readonly revocationId: string
  readonly scope: RevocationScope
  readonly walk: Walk
  /** Entries of one statement. */
  readonly most: () => number
  /** Each statement is run by this, which may let others go first; false stops the proof. */
  readonly turn: (work: () => Promise<void>) => Promise<boolean>
  /** Runs what holds a connection while it waits for turns: one in each process, so that those whose turn it is find one. */
  readonly alone: <T>(work: () => Promise<T>) => Promise<T>
}

/**
 * Says whether no live session is left that the scope means, in one snapshot. Undefined: another process is at it, or it
 * was stopped. What one statement can look at needs no transaction: very many small ones hold no connection while they wait.
 */
export const isNoneLeft = async (db: Database, asked: ProofAsked): Promise<boolean | undefined> => {
  const { scope, walk, most, turn, alone } = asked
  let answer: boolean | undefined
  const goesOn = await turn(async () => {
    const entriesAtMost = most()
    const { left, entries } = await look(db, { scope, walk, most: entriesAtMost, after: [] })
    if (left || entries < entriesAtMost) answer = !left
  })
  return answer === undefined && goesOn ? alone(() => isNoneLeftOfMany(db, asked)) : answer
}

const isNoneLeftOfMany = (db: Database, { revocationId, scope, walk, most, turn }: ProofAsked): Promise<boolean | undefined> =>
  db.$transaction(
    async (tx) => {
      await tx.$queryRawUnsafe(`SET LOCAL idle_in_transaction_session_timeout = ${IDLE_MS}`)
      const [lock] = await tx.$queryRawUnsafe<{ got: boolean }[]>(
        `SELECT pg_try_advisory_xact_lock(hashtext('curfew proof'), hashtext($1)) AS got`, revocationId,
      )
      if (lock?.got !== true) return undefined
      let answer: boolean | null = null
      let after: readonly string[] = []
      while (answer === null) {
        const goesOn = await turn(async () => {
          const asked = most()
          const { left, entries, last } = await look(tx, { scope, walk, most: asked, after })
          if (left || entries < asked || last === null) answer = !left
          else after = last
        })
        if (!goesOn) return answer ?? undefined
      }
      return answer
    },
    { isolationLevel: Prisma.TransactionIsolationLevel.RepeatableRead, timeout: TRANSACTION_MS },
  )
