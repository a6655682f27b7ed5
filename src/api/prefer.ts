/**
 * `Prefer: wait=N` and `Prefer: respond-async` (RFC 7240 §4.3, §4.1). Preferences are separated by commas, parameters by semicolons, names are
 * case-insensitive, values may be quoted, and of a preference given twice the first counts (§2).
 */

/** Longest time that an answer is held, in seconds. A longer wish is honoured up to here, and the answer says so. */
const MAX_WAIT_SECONDS = 30

/** A header is at most 16 KiB; nobody states more preferences than this for a reason. */
const MAX_PREFERENCES = 16

/** The value of a preference, empty where it has none, or null where it is not stated. */
const valueOf = (name: string, prefer: string | readonly string[] | undefined): string | null => {
  if (prefer === undefined) return null
  const text = typeof prefer === 'string' ? prefer : prefer.join(',')
  for (const preference of text.split(',', MAX_PREFERENCES)) {
    const [named = ''] = preference.split(';', 1)
    const at = named.indexOf('=')
    if (named.slice(0, at === -1 ? undefined : at).trim().toLowerCase() !== name) continue
    return at === -1 ? '' : named.slice(at + 1).trim().replace(/^"(.*)"$/, '$1')
  }
  return null
}

/** Seconds of `wait`, 0 to 30, or null where it is not asked for or not a whole number. */
export const waitPreference = (prefer: string | readonly string[] | undefined): number | null => {
  const value = valueOf('wait', prefer)
  return value !== null && /^\d{1,9}$/.test(value) ? Math.min(Number(value), MAX_WAIT_SECONDS) : null
}

/** `respond-async` has no value; one that is empty is none (§2). */
export const prefersAsync = (prefer: string | readonly string[] | undefined): boolean => valueOf('respond-async', prefer) === ''
