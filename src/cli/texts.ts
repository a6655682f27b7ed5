/** Parsers of options that several commands have. */
import { InvalidArgumentError } from 'commander'

/** An RFC 3339 time. */
export const time = (text: string): string => {
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/i.test(text) || Number.isNaN(Date.parse(text))) {
    throw new InvalidArgumentError('It must be an RFC 3339 time, for example 2026-11-23T12:00:00Z.')
  }
  return text
}

/** Collects an option that may be given often. */
export const another = (value: string, before: readonly string[]): string[] => [...before, value]
