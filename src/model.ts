/**
 * The words of Curfew, one line each. Every other file keeps to them.
 *
 * issuer       the identity provider whose sessions these are, by its `iss` URL
 * session      a user's signed-in state at an issuer
 * participant  a relying party (client) that took part in a session: clientId, and the sid and sub it knows
 * termination  the committed end of one session: the event `session.terminated`
 * revocation   the decision asked for: which sessions, by whom, why; has a state and progress
 * receiver     who is told; channel: how it is told; delivery: one receiver told of one thing
 * lane         a queue with its own workers
 * three clocks when a termination was committed, enforced (caches), acknowledged (receivers)
 */

/** Why a session ends: an ordinary log-out, or a security revocation. */
export type TerminationMode = 'logout' | 'revoke'

/** Who asked, by the issuer that vouches for it and its `sub` there. */
export interface Actor {
  readonly issuer: string
  readonly subject: string
}

/** One permitted request to end one session. Carries no secret: it travels through the queue. */
export interface TerminateCommand {
  readonly sessionId: string
  /** The issuers whose sessions the asker may end; a session of any other is answered `unknown`. */
  readonly issuers: readonly string[]
  readonly actor: Actor
  readonly mode: TerminationMode
  readonly reason: string | null
}

/** `details` as ZITADEL's clients know them: a 64-bit number as a string, RFC 3339 UTC with three digits. */
export interface Details {
  readonly sequence: string
  readonly changeDate: string
  readonly resourceOwner: string
}

/**
 * What became of one command.
 * `ended`: by this commit. `before`: already terminated, with the first termination's details.
 * `unknown`: no such session within the asker's issuers. `busy`: someone else holds the row; ask again.
 */
export type TerminateAnswer =
  | { readonly outcome: 'ended' | 'before'; readonly details: Details }
  | { readonly outcome: 'unknown' | 'busy' }

/** A session that a commit has just ended: what the local channels need to enforce it. */
export interface EndedSession {
  readonly sessionId: string
  readonly issuer: string
  /** When the session would have expired by itself, in milliseconds since 1970. */
  readonly expiresAtMs: number
  readonly cacheKeys: readonly string[]
  /** What participants know it by, where that is not its id. */
  readonly sids: readonly string[]
}

export type SessionState = 'active' | 'terminated'
export type ReceiverType = 'backchannel_logout' | 'webhook'
/** What webhooks can be told of; receivers choose by these names. */
export const webhookEvents = ['session.terminated', 'revocation.completed'] as const
export type SubjectForm = 'sid' | 'sub' | 'both'
export type DeliveryState = 'pending' | 'acknowledged' | 'failed' | 'moot'

/** A participant of a session, as a relying party knows it. */
export interface Participant {
  readonly clientId: string
  readonly sid: string
  readonly sub: string
}

/** The seven permissions that a caller may hold. */
export const permissions = [
  'session.read',
  'session.write',
  'session.delete',
  'revocation.read',
  'revocation.write',
  'receiver.read',
  'receiver.write',
] as const
export type Permission = (typeof permissions)[number]

/** Deliveries by what became of them. */
export interface DeliveryCounts {
  readonly total: number
  readonly acknowledged: number
  readonly pending: number
  readonly failed: number
  readonly moot: number
}

/** Which sessions a revocation is to end. Kinds are ANDed, values of one kind ORed; an empty list asks for nothing of its kind. */
export interface RevocationFilter {
  readonly resourceOwners: readonly string[]
  readonly userIds: readonly string[]
  readonly sessionIds: readonly string[]
  readonly clientIds: readonly string[]
  readonly fingerprintIds: readonly string[]
  /** Addresses or CIDRs. */
  readonly ips: readonly string[]
  /** RFC 3339; born up to and including this. */
  readonly bornBefore: string | null
  /** RFC 3339; born after this. */
  readonly bornAfter: string | null
  readonly includeExpired: boolean
  /** Every session within reach; no other kind stands beside it. */
  readonly all: boolean
}

/** What a revocation spares, whatever its filter says. */
export interface RevocationExclusions {
  readonly userIds: readonly string[]
  readonly sessionIds: readonly string[]
}

/** Which sessions are meant, whole: within these issuers and organizations, as filtered, without the excluded, born by the cutoff. */
export interface RevocationScope {
  readonly issuers: readonly string[]
  readonly reach: 'instance' | ReadonlySet<string>
  readonly filter: RevocationFilter
  readonly exclude: RevocationExclusions
  /** RFC 3339, a whole second: what was born later lives. */
  readonly cutoff: string
}

/** `running`: sessions are being ended. `done`: a pass has found none left. */
export type RevocationState = 'running' | 'paused' | 'cancelled' | 'done'
export type NotificationState = 'running' | 'paused' | 'cancelled'
/** `rules`: in force at once, by cutoff rules. `rows`: a session dies when it is ended. */
export type Containment = 'rules' | 'rows'
