/**
 * The words of a revocation's report: what its three formats say, and what its signature covers. Shared by the API,
 * which writes them, and `curfew verify-report`, which checks them; fit for anybody else who does.
 *
 * A report is signed by a compact JWS (RFC 7515) of the type below, over claims that hold the SHA-256 of the report:
 * - `json`: `{"report": …, "signature": "…"}`; hashed is `report` in its canonical form (RFC 8785), so that a reader may
 *   lay the document out anew.
 * - `ndjson`: the last line is `{"signature": "…"}`; hashed are the bytes before it.
 * - `csv`: the last record is `signature`; hashed are the bytes before it.
 */

export const REPORT_TYPE = 'curfew-report+jwt'

export const reportFormats = ['json', 'csv', 'ndjson'] as const
export type ReportFormat = (typeof reportFormats)[number]

/** The signed claims, besides `iss` (the issuer in whose name it is signed), `sub` (`revocations/{id}`), `iat` and `jti`. */
export interface ReportClaim {
  readonly format: ReportFormat
  /** Of what is hashed, in lower-case hexadecimal. */
  readonly sha256: string
  readonly state: string
  readonly final: boolean
  readonly terminated: string
  readonly remaining: string
  readonly remainingExact: boolean
}

/** 64-bit numbers are strings. */
export interface ReportCounts {
  readonly total: string
  readonly acknowledged: string
  readonly pending: string
  readonly failed: string
  readonly moot: string
}

/** Why a participant was not told: nobody is registered for it, its turn has not come, or it was too long ago to say. */
export type Untold = 'no_receiver' | 'not_yet' | 'forgotten'

/** One delivery about a session. */
export interface ReportTold {
  /** Null: a receiver that the reader may not see. */
  readonly receiver: string | null
  /** Empty: a webhook. */
  readonly clientId: string
  readonly state: string
  /** What its last attempt came to. */
  readonly outcome: string | null
  readonly time: string | null
}

export interface ReportSession {
  readonly id: string
  /** What follows is null where the session's retention is over. */
  readonly issuer: string | null
  readonly userId: string | null
  readonly resourceOwner: string | null
  readonly born: string | null
  readonly terminated: string
  /** How often it was tried after its end, as far as anybody counted; null: never. */
  readonly attempts: string | null
  readonly lastAttemptTime: string | null
  readonly told: readonly ReportTold[]
  /** Participants that nobody told, or that cannot be said of. */
  readonly untold: readonly { readonly clientId: string; readonly why: Untold }[]
}

export interface ReportReceiver extends ReportCounts {
  /** Null: one that the reader may not see. */
  readonly id: string | null
  /** Null: it was deleted since. */
  readonly type: string | null
  readonly clientId: string | null
  readonly acknowledgedTime: string | null
  /** Deliveries that failed, by what their last attempt came to. */
  readonly failures: Readonly<Record<string, string>>
}

/** A value as RFC 8785 writes it; for what a report holds: texts, whole numbers, truths, nulls, lists and objects. */
export const canonical = (value: unknown): string => {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null'
  const members = Object.entries(value).filter(([, member]) => member !== undefined)
  // By UTF-16 code units, as `<` compares.
  members.sort(([one], [other]) => (one < other ? -1 : 1))
  return `{${members.map(([name, member]) => `${JSON.stringify(name)}:${canonical(member)}`).join(',')}}`
}
