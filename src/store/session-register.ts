/**
 * Registering sessions, one or a thousand, in the same two statements: `addSessions` inserts what is new, and
 * `rotateTokens` settles what was there. A registration that races with a termination is answered by the locked
 * row, so it never revives the session (G2).
 *
 * Deadlock-free for batches too: both statements take ids in id order, and nobody who holds a row lock waits for
 * another's insert.
 */
import { CurfewError } from '../errors.ts'
import type { ErrorName } from '../errors.ts'
import type { Actor, Details } from '../model.ts'
import type { Database } from './postgres.ts'
import { addSays, addSessions } from './session-add.ts'
import type { AddAnswer, Numbered, Registration } from './session-add.ts'
import { orAskAgain } from './session-lock.ts'
import { rotateTokens } from './session-rotate.ts'

/** Who writes, and the issuers whose sessions they speak for. */
export interface Writer {
  readonly actor: Actor
  readonly issuers: readonly string[]
}

export interface Registered {
  /** False where the session was there and only its token is new. */
  readonly added: boolean
  readonly details: Details
}

/** A row is missing from both statements only if it was pruned in between: one more round settles that. */
const MAX_ROUNDS = 3

type Refuse = (n: number, kind: ErrorName, says?: string) => never

interface Settling {
  readonly db: Pick<Database, '$queryRawUnsafe'>
  readonly writer: Writer
  readonly maxLifetimeSeconds: number
  readonly refuse: Refuse
}

const settle = async (settling: Settling, registrations: readonly Registration[]): Promise<Registered[]> => {
  const { db, writer: { actor, issuers }, maxLifetimeSeconds, refuse } = settling
  const settled = new Map<number, Registered>()
  let asked: Numbered[] = registrations.map((registration, n) => ({ n, registration }))
  for (let round = 0; round < MAX_ROUNDS && asked.length > 0; round += 1) {
    const refusals = new Map<number, NonNullable<AddAnswer['refusal']>>()
    for (const { n, refusal, change_date: changeDate } of await addSessions(db, { actor, maxLifetimeSeconds, asked })) {
      if (refusal !== null) refusals.set(n, refusal)
      if (changeDate === null) continue
      settled.set(n, { added: true, details: detailsOf(registrations, n, { sequence: '1', changeDate }) })
    }
    asked = asked.filter(({ n }) => !settled.has(n))
    if (asked.length === 0) break
    for (const { n, refusal, sequence, change_date: changeDate } of await rotateTokens(db, { actor, issuers, asked })) {
      if (refusal === 'born_under_rule') refuse(n, 'session_terminated', addSays[refusal])
      else if (refusal !== null) refuse(n, refusal)
      settled.set(n, { added: false, details: detailsOf(registrations, n, { sequence, changeDate }) })
    }
    asked = asked.filter(({ n }) => !settled.has(n))
    for (const { n } of asked) {
      const refusal = refusals.get(n)
      if (refusal !== undefined) refuse(n, refusal === 'born_under_rule' ? 'session_terminated' : 'invalid_argument', addSays[refusal])
    }
  }
  if (asked.length > 0) throw new CurfewError('overloaded')
  return registrations.map((_, n) => settled.get(n)).filter((answer) => answer !== undefined)
}

type At = Pick<Details, 'sequence' | 'changeDate'>

const detailsOf = (registrations: readonly Registration[], n: number, at: At): Details => ({
  ...at,
  // An identical registration names the same organization as the row: it is part of the hash.
  resourceOwner: registrations[n]?.resourceOwner ?? '',
})

const refuseOne: Refuse = (_n, kind, says) => {
  throw new CurfewError(kind, says === undefined ? {} : { says })
}

const refuseOfMany: Refuse = (n, kind, says) => {
  throw new CurfewError(kind, { says: `sessions[${n}]: ${says ?? new CurfewError(kind).says}` })
}

/** A batch of 1,000 takes about 0.1 s; a batch that waits longer than this for others is asked again by its caller. */
const BATCH_TIMEOUT_MS = 10_000

/**
 * Makes the two ways to register.
 *
 * `register` takes one session. A new id is added; the identical registration again rotates the token; another one
 * for a live id is `session_exists`, for a terminated id or one that a cutoff rule kills `session_terminated`, and dates
 * that are refused are `invalid_argument`. Ids are global: one that belongs to an issuer the writer does not speak for is `session_exists`
 * too. That tells a registrar of one issuer that an id is taken at another; registrars are trusted with the whole
 * instance, and the alternative would be to accept a session that cannot be stored.
 *
 * `registerMany` takes up to 1,000 with different ids, all or none, and names the first bad one's index.
 *
 * Both are safe to repeat: the answer to a lost answer is a new token.
 */
export const createRegister = ({ db, maxLifetimeSeconds }: { db: Database; maxLifetimeSeconds: number }) => ({
  register: (writer: Writer, registration: Registration): Promise<Registered> =>
    orAskAgain(async () => {
      const [answer] = await settle({ db, writer, maxLifetimeSeconds, refuse: refuseOne }, [registration])
      if (answer === undefined) throw new Error('The registration was not answered')
      return answer
    }),
  registerMany: (writer: Writer, registrations: readonly Registration[]): Promise<Registered[]> =>
    orAskAgain(() =>
      db.$transaction((tx) => settle({ db: tx, writer, maxLifetimeSeconds, refuse: refuseOfMany }, registrations), {
        timeout: BATCH_TIMEOUT_MS,
      }),
    ),
})
