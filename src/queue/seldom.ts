/**
 * Logging of what may happen thousands of times a second while a store is away: the first line at once, then one in
 * ten seconds for each event, with the number left out.
 */
import type { Log } from '../telemetry.ts'

const EVERY_MS = 10_000

interface Fields {
  readonly event: string
  readonly [field: string]: unknown
}

export interface Seldom {
  warn(fields: Fields, sentence: string): void
  error(fields: Fields, sentence: string): void
}

export const createSeldom = (log: Log): Seldom => {
  const last = new Map<string, { atMs: number; leftOut: number }>()
  const at = (level: 'warn' | 'error') => (fields: Fields, sentence: string) => {
    const now = performance.now()
    const before = last.get(fields.event)
    if (before !== undefined && now - before.atMs < EVERY_MS) {
      before.leftOut += 1
      return
    }
    last.set(fields.event, { atMs: now, leftOut: 0 })
    log[level]({ ...fields, ...(before === undefined || before.leftOut === 0 ? {} : { leftOut: before.leftOut }) }, sentence)
  }
  return { warn: at('warn'), error: at('error') }
}
