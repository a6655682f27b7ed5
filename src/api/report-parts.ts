/**
 * A revocation's report, part by part: the facts, each receiver's outcome, each session that was ended, and what follows
 * from having seen them all. Holds a page in memory, however many sessions there are.
 */
import type { ReportReceiver, ReportSession, ReportTold, Untold } from '../client/report.ts'
import type { EndedDelivery, EndedRow, UserAtReceiver } from '../store/revocation-ended.ts'
import type { FailureRow, HistoryEntry, OutcomeRow, ReportRule } from '../store/revocation-report.ts'
import type { Within } from '../store/receivers.ts'
import type { Revocation } from '../store/revocations.ts'
import { limitsOf } from './report-limits.ts'

export interface ReportReads {
  readonly readHistory: (id: string) => Promise<readonly HistoryEntry[]>
  readonly readRulesOf: (id: string) => Promise<readonly ReportRule[]>
  readonly readOutcomes: (asked: Within & { id: string; after: string; limit: number }) => Promise<readonly OutcomeRow[]>
  readonly readFailures: (id: string) => Promise<readonly FailureRow[]>
  readonly readEnded: (asked: { id: string; after: string }) => Promise<readonly EndedRow[]>
  readonly readToldOfUsers: (asked: { id: string; users: readonly UserAtReceiver[] }) => Promise<readonly EndedDelivery[]>
  /** Live sessions that the revocation is to end, counted anew up to a bound. */
  readonly countRemaining: (revocation: Revocation) => Promise<{ count: number; exact: boolean }>
  /** RFC 3339 UTC, by the database's clock. */
  readonly readClock: () => Promise<string>
}

export type ReportFacts = Awaited<ReturnType<typeof factsOf>>

/** Told once every session was seen. */
export interface ReportEnd {
  readonly listed: number
  /** Participants that were not told, by client and by why. */
  readonly untold: readonly { readonly clientId: string; readonly why: Untold; readonly participants: number }[]
  /** How often the sessions that it ended, and whatever its rules killed, were tried after their end. */
  readonly attempts: { readonly sessions: string; readonly rules: string; readonly lastTime: string | null }
}

export type ReportPart =
  | { readonly kind: 'facts'; readonly facts: ReportFacts }
  | { readonly kind: 'receivers'; readonly receivers: readonly ReportReceiver[] }
  | { readonly kind: 'sessions'; readonly sessions: readonly ReportSession[] }
  | { readonly kind: 'end'; readonly end: ReportEnd }

const RECEIVERS_AT_ONCE = 1_000

/**
 * @param seen the revocation, which the reader may see. @param facts what `factsOf` says of it.
 * @param within the receivers that the reader may see by name.
 */
export async function* partsOf(reads: ReportReads, { seen, facts, within }: { seen: Revocation; facts: ReportFacts; within: Within }): AsyncGenerator<ReportPart> {
  const { id } = seen
  yield { kind: 'facts', facts }
  const named = new Set<string>()
  const tellers = new Map<string, string[]>()
  const failures = await reads.readFailures(id)
  for (let after = '', more = true; more; ) {
    const rows = await reads.readOutcomes({ ...within, id, after, limit: RECEIVERS_AT_ONCE })
    for (const { receiverId, issuer, clientId, visible } of rows) {
      if (visible) named.add(receiverId)
      if (clientId === null) continue
      const client = clientOf(issuer, clientId)
      tellers.set(client, [...(tellers.get(client) ?? []), receiverId])
    }
    if (rows.length > 0) yield { kind: 'receivers', receivers: rows.map((row) => receiverOf(row, failures)) }
    after = rows.at(-1)?.receiverId ?? after
    more = rows.length === RECEIVERS_AT_ONCE
  }
  const isOver = seen.state === 'done' || seen.state === 'cancelled'
  const untold = new Map<string, { clientId: string; why: Untold; participants: number }>()
  let listed = 0
  let attempts = 0n
  let lastTime = latest(facts.rules.map((rule) => rule.lastAttemptTime))
  for (let after = '0'; ; ) {
    const rows = await reads.readEnded({ id, after })
    const last = rows.at(-1)
    if (last === undefined) break
    const users = rows.flatMap((row) => mayBeToldOfUser(row, tellers))
    const ofUsers = new Map<string, EndedDelivery[]>()
    for (const delivery of users.length === 0 ? [] : await reads.readToldOfUsers({ id, users })) {
      const key = userAt(delivery)
      ofUsers.set(key, [...(ofUsers.get(key) ?? []), delivery])
    }
    const sessions = rows.map((row) => sessionOf(row, { named, tellers, ofUsers, isOver }))
    for (const session of sessions) {
      count(untold, session)
      attempts += BigInt(session.attempts ?? 0)
      lastTime = latest([lastTime, session.lastAttemptTime])
    }
    listed += rows.length
    yield { kind: 'sessions', sessions }
    after = last.commit
  }
  const rules = String(facts.rules.reduce((sum, rule) => sum + BigInt(rule.attempts), 0n))
  yield { kind: 'end', end: { listed, untold: [...untold.values()], attempts: { sessions: String(attempts), rules, lastTime } } }
}

/** The last of times that are all of one shape, and so compare as texts. */
const latest = (times: readonly (string | null)[]): string | null => times.reduce((one, other) => ((other ?? '') > (one ?? '') ? other : one), null)

export const factsOf = async (reads: ReportReads, revocation: Revocation) => {
  const { id, reach, actor, filter, exclude, deliveries } = revocation
  const [history, rules, remaining, generatedTime] = await Promise.all([
    reads.readHistory(id), reads.readRulesOf(id), reads.countRemaining(revocation), reads.readClock(),
  ])
  const final = revocation.told && (revocation.state === 'done' || revocation.state === 'cancelled')
  return {
    name: `revocations/${id}`,
    generatedTime,
    /** Nothing of it will change by itself. */
    final,
    state: revocation.state,
    notifications: revocation.notifications,
    mode: revocation.mode,
    reason: revocation.reason,
    ticket: revocation.ticket,
    actor,
    issuers: revocation.issuers,
    /** Null: the whole instance. */
    organizations: reach === 'instance' ? null : [...reach].sort(),
    filter,
    exclude,
    containment: revocation.containment,
    pacing: { deliveriesPerSecond: revocation.deliveriesPerSecond },
    rules,
    clocks: {
      createTime: revocation.created,
      cutoffTime: revocation.cutoff,
      committedTime: revocation.committed,
      enforcedTime: revocation.enforced,
      acknowledgedTime: revocation.acknowledged,
    },
    history,
    sessions: {
      expected: revocation.expected,
      expectedExact: revocation.expectedExact,
      matched: revocation.matched,
      terminated: revocation.terminated,
      remaining: String(remaining.count),
      remainingExact: remaining.exact,
      /**
       * A whole pass over everything that it could mean found none left, at `committedTime`, and this count has found none
       * since. The pass is the proof: a count that is not exact (see `limits`) adds nothing to it, and takes nothing from it.
       */
      proven: revocation.state === 'done' && remaining.count === 0,
    },
    deliveries,
    limits: limitsOf(revocation, { final, remainingExact: remaining.exact }),
  }
}

const receiverOf = (row: OutcomeRow, failures: readonly FailureRow[]): ReportReceiver => {
  const { receiverId, visible, type, issuer: _, clientId, ...counts } = row
  const own = failures.filter((failure) => failure.receiverId === receiverId)
  return {
    id: visible ? receiverId : null,
    type,
    clientId,
    ...counts,
    failures: Object.fromEntries(own.map(({ outcome, count: number }) => [outcome, number])),
  }
}

/** The receivers of a participant that were not told of it by the session's own name. */
const mayBeToldOfUser = ({ issuer, participants, deliveries }: EndedRow, tellers: ReadonlyMap<string, readonly string[]>): UserAtReceiver[] =>
  participants.flatMap(({ clientId, sid, sub }) =>
    (tellers.get(clientOf(issuer, clientId)) ?? [])
      .filter((receiverId) => !deliveries.some((one) => one.receiverId === receiverId && one.clientId === clientId && one.sid === sid))
      .map((receiverId) => ({ receiverId, clientId, sub })))

/** Issuers may have clients of the same name. */
const clientOf = (issuer: string | null, clientId: string): string => JSON.stringify([issuer, clientId])

const userAt = ({ receiverId, clientId, sub }: UserAtReceiver): string => JSON.stringify([receiverId, clientId, sub])

const sessionOf = (
  row: EndedRow,
  { named, tellers, ofUsers, isOver }: {
    named: ReadonlySet<string>; tellers: ReadonlyMap<string, readonly string[]>; ofUsers: ReadonlyMap<string, readonly EndedDelivery[]>; isOver: boolean
  },
): ReportSession => {
  const told = new Set(row.deliveries)
  const untold: { clientId: string; why: Untold }[] = []
  for (const participant of row.participants) {
    const { clientId, sid, sub } = participant
    const receivers = tellers.get(clientOf(row.issuer, clientId)) ?? []
    const ofUser = receivers.flatMap((receiverId) => ofUsers.get(userAt({ receiverId, clientId, sub })) ?? [])
    for (const delivery of ofUser) told.add(delivery)
    if (ofUser.length > 0 || row.deliveries.some((one) => one.clientId === clientId && one.sid === sid)) continue
    untold.push({ clientId, why: row.old ? 'forgotten' : row.routed && isOver ? 'no_receiver' : 'not_yet' })
  }
  const { id, issuer, userId, resourceOwner, born, terminated, attempts, lastAttemptTime } = row
  return {
    id, issuer, userId, resourceOwner, born, terminated, attempts, lastAttemptTime, untold,
    told: [...told].map(({ receiverId, clientId, state, outcome, time }): ReportTold => ({
      receiver: named.has(receiverId) ? receiverId : null, clientId, state, outcome, time,
    })),
  }
}

const count = (counts: Map<string, { clientId: string; why: Untold; participants: number }>, { untold }: ReportSession): void => {
  for (const { clientId, why } of untold) {
    const key = `${why} ${clientId}`
    const counted = counts.get(key) ?? { clientId, why, participants: 0 }
    counts.set(key, { ...counted, participants: counted.participants + 1 })
  }
}
