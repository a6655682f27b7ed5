/**
 * ZITADEL's date queries as half-open ranges of milliseconds, which is what dates are stored in: `> x` is `>= the
 * next millisecond`. Exact also for an `x` that is finer than that.
 */
import type { InstantRange } from '../../../store/session-search.ts'

export const timestampMethods = [
  'TIMESTAMP_QUERY_METHOD_EQUALS',
  'TIMESTAMP_QUERY_METHOD_GREATER',
  'TIMESTAMP_QUERY_METHOD_GREATER_OR_EQUALS',
  'TIMESTAMP_QUERY_METHOD_LESS',
  'TIMESTAMP_QUERY_METHOD_LESS_OR_EQUALS',
] as const

export type TimestampMethod = (typeof timestampMethods)[number]

const everything: InstantRange = { from: '-infinity', before: 'infinity' }

const iso = (milliseconds: number): string => new Date(milliseconds).toISOString()

/** The range in which `date <method> text` holds. `text` is RFC 3339, with up to nine fractional digits. */
export const rangeOf = (text: string, method: TimestampMethod): InstantRange => {
  const at = Date.parse(text)
  const isFiner = /\.\d{3}\d*[1-9]/.test(text)
  // The first stored millisecond at or after x, and the first after it.
  const reached = iso(isFiner ? at + 1 : at)
  const passed = iso(at + 1)
  switch (method) {
    case 'TIMESTAMP_QUERY_METHOD_EQUALS':
      return { from: reached, before: passed }
    case 'TIMESTAMP_QUERY_METHOD_GREATER':
      return { ...everything, from: passed }
    case 'TIMESTAMP_QUERY_METHOD_GREATER_OR_EQUALS':
      return { ...everything, from: reached }
    case 'TIMESTAMP_QUERY_METHOD_LESS':
      return { ...everything, before: reached }
    case 'TIMESTAMP_QUERY_METHOD_LESS_OR_EQUALS':
      return { ...everything, before: passed }
    default:
      return method satisfies never
  }
}

/** What lies in both ranges; null is everything. ISO dates of one form sort as text, and the infinities do not. */
export const within = (one: InstantRange | null, other: InstantRange): InstantRange => {
  if (one === null) return other
  return {
    from: one.from === '-infinity' || (other.from !== '-infinity' && other.from > one.from) ? other.from : one.from,
    before: one.before === 'infinity' || (other.before !== 'infinity' && other.before < one.before) ? other.before : one.before,
  }
}
