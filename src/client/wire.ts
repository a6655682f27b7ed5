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

/** What a guard says of a session. */
export type Verdict = 'active' | 'terminated' | 'cutoff' | 'stale'
