/**
 * Every error that a caller can meet, in one table, and the class that carries one.
 *
 * The body is google.rpc.Status as ZITADEL's REST gateway writes it: `{code, message, details?}`. The
 * sentence is public and never holds an id, a token or a driver's words; those go in `cause`, for the log.
 * The README's error table is checked against this one.
 */

interface ErrorKind {
  /** HTTP status. */
  readonly status: number
  /** google.rpc.Code. */
  readonly code: number
  /** The stable id that clients match, or null where the wire has none (then `details` is absent). */
  readonly id: string | null
  readonly says: string
  /** Seconds for `Retry-After`, where asking again later can help. */
  readonly retryAfterSeconds?: number
}

export const errorKinds = {
  auth_header_missing: { status: 401, code: 16, id: null, says: 'auth header missing' },
  auth_header_malformed: { status: 401, code: 16, id: 'AUTH-toLo1', says: 'invalid auth header' },
  token_invalid: { status: 401, code: 16, id: 'AUTH-7fs1e', says: 'Errors.Token.Invalid' },
  session_token_invalid: { status: 403, code: 7, id: 'COMMAND-sGr42', says: 'Session Token is invalid' },
  permission_denied: { status: 403, code: 7, id: 'AUTH-AWfge', says: 'No matching permissions found' },
  session_not_found: { status: 404, code: 5, id: 'QUERY-SFeaa', says: 'Session does not exist' },
  receiver_not_found: { status: 404, code: 5, id: 'CURFEW-rcv04', says: 'Receiver does not exist' },
  delivery_not_found: { status: 404, code: 5, id: 'CURFEW-dlv04', says: 'Delivery does not exist' },
  issuer_not_found: { status: 404, code: 5, id: 'CURFEW-iss04', says: 'Issuer does not exist' },
  revocation_not_found: { status: 404, code: 5, id: 'CURFEW-rev04', says: 'Revocation does not exist' },
  revocation_not_steerable: { status: 400, code: 9, id: 'CURFEW-rev09', says: 'Revocation cannot be steered so in its state' },
  preview_required: { status: 400, code: 9, id: 'PREVIEW_REQUIRED', says: 'So many sessions need a preview: ask with validateOnly, and send its previewToken with the same body' },
  preview_drift: { status: 400, code: 9, id: 'PREVIEW_DRIFT', says: 'More than 10 % more or fewer sessions match than the preview said, take a new one' },
  idempotency_conflict: { status: 409, code: 6, id: 'CURFEW-idm06', says: 'Idempotency-Key was used with another body' },
  delivery_not_dead: { status: 409, code: 9, id: 'CURFEW-dlv09', says: 'Delivery is not a dead letter, or its time is over' },
  route_not_found: { status: 404, code: 5, id: null, says: 'Not Found' },
  method_not_allowed: { status: 405, code: 12, id: null, says: 'Method Not Allowed' },
  invalid_argument: { status: 400, code: 3, id: null, says: 'Invalid argument' },
  search_query_unknown: { status: 400, code: 3, id: 'GRPC-Sfefs', says: 'Search query must be exactly one of the known ones' },
  search_creator_missing: { status: 400, code: 3, id: 'GRPC-x8n24uh', says: 'Creator to search for is empty' },
  search_user_agent_missing: { status: 400, code: 3, id: 'GRPC-x8n23uh', says: 'User agent to search for is empty or not known' },
  headers_too_large: { status: 431, code: 3, id: null, says: 'Request header fields too large' },
  request_timeout: { status: 408, code: 4, id: null, says: 'Request not received in time' },
  unsupported_media_type: { status: 415, code: 3, id: null, says: 'Malformed Content-Type' },
  body_too_large: { status: 413, code: 3, id: null, says: 'Request body too large' },
  stream_position_gone: { status: 410, code: 11, id: 'CURFEW-str11', says: 'Stream position is of another epoch or too old, take a snapshot' },
  session_exists: { status: 409, code: 6, id: 'CURFEW-ses06', says: 'Session already exists with another body' },
  session_terminated: { status: 409, code: 9, id: 'COMMAND-Hewfq', says: 'Session is terminated' },
  session_expired: { status: 409, code: 9, id: 'COMMAND-Hkl3d', says: 'Session is expired' },
  too_many_requests: { status: 429, code: 8, id: 'CURFEW-lim08', says: 'Too many requests', retryAfterSeconds: 1 },
  overloaded: { status: 503, code: 14, id: 'CURFEW-ovl14', says: 'Overloaded, ask again shortly', retryAfterSeconds: 1 },
  unavailable: { status: 503, code: 14, id: 'CURFEW-dbs14', says: 'Nothing can be committed at present', retryAfterSeconds: 2 },
  issuer_unavailable: { status: 503, code: 14, id: 'CURFEW-iss14', says: 'Tokens cannot be checked at present', retryAfterSeconds: 2 },
  not_committed_in_time: { status: 504, code: 4, id: 'CURFEW-tim04', says: 'Not known to be committed yet, asking again is safe' },
  internal: { status: 500, code: 13, id: null, says: 'Internal error' },
} as const satisfies Record<string, ErrorKind>

export type ErrorName = keyof typeof errorKinds

export interface ErrorBody {
  code: number
  message: string
  details?: { '@type': string; id: string; message: string }[]
}

/** The one error class that reaches a caller. `cause` is for the log and never leaves the process. */
export class CurfewError extends Error {
  readonly kind: ErrorName
  readonly says: string

  /** @param says replaces the table's sentence where the caller needs more (which field, what range); public. */
  constructor(kind: ErrorName, options: { says?: string; cause?: unknown } = {}) {
    super(options.says ?? errorKinds[kind].says, { cause: options.cause })
    this.name = 'CurfewError'
    this.kind = kind
    this.says = this.message
  }

  get status(): number {
    return errorKinds[this.kind].status
  }

  get retryAfterSeconds(): number | undefined {
    const kind: ErrorKind = errorKinds[this.kind]
    return kind.retryAfterSeconds
  }

  body(): ErrorBody {
    const { code, id } = errorKinds[this.kind]
    if (id === null) return { code, message: this.says }
    return {
      code,
      message: `${this.says} (${id})`,
      details: [{ '@type': 'type.googleapis.com/zitadel.v1.ErrorDetail', id, message: this.says }],
    }
  }
}
