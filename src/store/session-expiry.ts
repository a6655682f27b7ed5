/**
 * When a session ends by itself: asked for as an instant or as a lifetime from now, judged in SQL by the
 * database's clock. The same rule for registering and for updating.
 */
export type Expiry = { readonly at: string } | { readonly lifetimeMs: number }

/** The two columns in which an expiry travels into a statement. */
export const expiryColumns = (expiry: Expiry | null): { expires_at: string | null; lifetime_ms: number | null } => ({
  expires_at: expiry !== null && 'at' in expiry ? expiry.at : null,
  lifetime_ms: expiry !== null && 'lifetimeMs' in expiry ? expiry.lifetimeMs : null,
})

/** The public sentence for each refusal of `expiryRefusal`. */
export const expirySays = {
  expiry_past: 'expirationDate must lie in the future',
  expiry_too_late: 'expirationDate or lifetime is beyond the longest lifetime of a session',
} as const

/** SQL for the name of a refusal, or NULL where the end lies between now and the longest lifetime from now. */
export const expiryRefusal = ({ ends, at, maxSeconds }: { ends: string; at: string; maxSeconds: string }): string =>
  `CASE WHEN ${ends} <= ${at} THEN 'expiry_past'
        WHEN ${ends} > ${at} + ${maxSeconds} * interval '1 second' THEN 'expiry_too_late' END`
