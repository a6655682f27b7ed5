/**
 * The words that server and guards share: what the stream says, in Redis and over HTTP. It imports nothing, so that
 * a resource server takes no part of the server with it.
 *
 * Times are milliseconds since 1970. Names are short of nothing that a guard decides by: no user, no reason, no
 * secret beyond them is on the stream.
 */

/** A cutoff rule. What it does not name (null), it does not ask for. */
export interface RuleOnTheWire {
  readonly id: string
  readonly issuer: string
  readonly organization: string | null
  readonly user: string | null
  /** Whatever was born at or before this is dead. */
  readonly cutoffMs: number
  readonly excludeUsers: readonly string[]
  readonly excludeSessions: readonly string[]
  /** From then on nothing that it kills could still live; the rule may be forgotten. */
  readonly expiresMs: number
}

/** One ended session, kept for as long as it or a token of it could live. */
export interface TombstoneOnTheWire {
  readonly issuer: string
  readonly sessionId: string
  readonly expiresMs: number
}

/** Ended sessions of one issuer, in two columns of the same length: short for what there is most of. */
export interface EndedOnTheWire {
  readonly issuer: string
  readonly sessionIds: readonly string[]
  readonly expiresMs: readonly number[]
}

/** One step of the stream, or one line of a snapshot. Knowing it twice, or out of order, is as good as once. */
export interface EntryOnTheWire {
  readonly ended?: readonly EndedOnTheWire[]
  readonly rules?: readonly RuleOnTheWire[]
}

/** A snapshot's first line: what follows holds all that was committed up to this position. */
export interface SnapshotHead {
  /** Names the epoch too; `after=` of what follows. Opaque. */
  readonly position: string
  /** Milliseconds by which the position was behind what is committed when it was read. */
  readonly lagMs: number
}

/** A snapshot's last line: without it the snapshot is broken off. */
export interface SnapshotEnd {
  readonly done: true
}

/** Said first, so that a reader can tell the server's clock in its own: nothing was said before it asked. */
export interface ClockOnTheWire {
  /** As in `FreshOnTheWire`. */
  readonly atMs: number
}

/** Said each second: everything committed until `lagMs` before this was said has been told. */
export interface FreshOnTheWire {
  /** A clock of the server's that only runs forward, in milliseconds; for differences within one connection. */
  readonly atMs: number
  readonly lagMs: number
  /** Events `entry` sent on this connection so far: who has another number has missed some of them. */
  readonly entries: number
}

/** The answer of a long poll. */
export interface TailOnTheWire {
  /** Where to go on. */
  readonly position: string
  readonly entries: readonly EntryOnTheWire[]
}

/** How often what is dead was tried since this was last told: one ended session, or whatever one rule kills. */
export interface AttemptOnTheWire {
  readonly issuer: string
  readonly sessionId?: string
  readonly ruleId?: string
  readonly count: number
}

/** The body of `POST /v1/attempts`; at most 1,000 at once. */
export interface AttemptsOnTheWire {
  readonly attempts: readonly AttemptOnTheWire[]
}

/** What a guard says of a session. */
export type Verdict = 'active' | 'terminated' | 'cutoff' | 'stale'
