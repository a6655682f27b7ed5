/**
 * The contract of every remote channel: how one standard says that a session has ended (`compose`), and what the
 * answer means (`judge`). A channel knows nothing of retries, breakers or sockets; delivery knows nothing of tokens.
 */
import type { SubjectForm } from '../model.ts'
import type { ToldCompletion, ToldTermination } from '../store/told.ts'

/** What a channel needs of the receiver. */
export interface ChannelReceiver {
  readonly id: string
  readonly url: string
  readonly clientId: string | null
  readonly subject: SubjectForm
  readonly alg: string
  /** A webhook's secrets, encrypted, the newest first; empty for other types. */
  readonly secrets: readonly string[]
}

/** What a channel needs of one delivery. */
export interface ChannelDelivery {
  readonly id: string
  readonly sessionId: string
  readonly clientId: string
  readonly sid: string
  readonly sub: string
  readonly issuer: string
  /** Read for webhooks alone; null for other types, and where the event is no longer there. */
  readonly termination: ToldTermination | null
  /** Of a revocation that is completed: then there is no session. Null for all else. */
  readonly completion: ToldCompletion | null
  /** It stands for all sessions that a revocation ended of this user, so it names the user alone. */
  readonly ofUser: boolean
}

/** One request, complete but for what the door adds (host, length, `accept-encoding: identity`). A GET has no body. */
export interface OutboundRequest {
  readonly url: string
  readonly method: 'GET' | 'POST'
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** Why no answer came. Everything here may pass by itself. */
export type Silence =
  | 'timeout'
  | 'connection_refused'
  | 'connection_lost'
  | 'name_not_resolved'
  | 'tls_refused'
  | 'address_refused'
  | 'not_http'
  | 'unreachable'

/** What came back: a status with the first of the body, or nothing and why. */
export type Answer =
  | { readonly status: number; readonly retryAfterMs: number | null; readonly body: string }
  | { readonly silence: Silence; readonly detail: string }

/** What an answer means. Carried as data, never as text. */
export type Verdict =
  | { readonly verdict: 'delivered' }
  /** `retryAfterMs` is the receiver's own wish, not yet clamped. */
  | { readonly verdict: 'retry'; readonly retryAfterMs: number | null }
  | { readonly verdict: 'gave_up' }
  /** The receiver says that it will never be there again: it is switched off. */
  | { readonly verdict: 'receiver_gone' }

export interface RemoteChannel {
  readonly name: string
  /**
   * Makes the request of one attempt; called anew for each attempt, so that whatever must be fresh is.
   * Rejects where it cannot be made (no key, a foreign algorithm); nothing was sent then, and it is tried again.
   */
  compose(delivery: ChannelDelivery, receiver: ChannelReceiver): Promise<OutboundRequest>
  /** Total and pure: every answer has a meaning. */
  judge(answer: Answer): Verdict
}
