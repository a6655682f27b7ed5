/**
 * `Retry-After` (RFC 9110 §10.2.3): seconds, or a date. Anything else is as if it were absent.
 *
 * @returns milliseconds from now, not clamped and never negative, or null.
 */
export const parseRetryAfter = (header: string | undefined, nowMs: number): number | null => {
  const text = header?.trim() ?? ''
  if (/^\d{1,12}$/.test(text)) return Number(text) * 1_000
  // Only the forms of HTTP dates, because Date.parse also takes "-5" and "2".
  if (!/^[A-Z][a-z]{2,8},? /.test(text)) return null
  const at = Date.parse(text)
  return Number.isNaN(at) ? null : Math.max(0, at - nowMs)
}
