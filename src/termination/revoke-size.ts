/** How large a chunk is: as large as takes the time that it may, by what the last ones took. */

/** At most: entries of the index that are looked at, and sessions that are ended. */
export interface Size {
  readonly entries: number
  readonly sessions: number
}

interface Bounds {
  readonly sessions: number
  readonly entries: number
  readonly ms: number
}

/**
 * Alone, 2,000 sessions spread what a statement costs by itself, and fit into what is enforced and routed at once. Beside
 * log-outs, what fits into 10 ms. Where most of an index is dead, ten times as many entries are looked at.
 */
const bounds = {
  alone: { sessions: 2_000, entries: 20_000, ms: 200 },
  beside: { sessions: 250, entries: 2_500, ms: 10 },
} as const satisfies Record<string, Bounds>

const LEAST_SESSIONS = 20

const clamp = (value: number, least: number, most: number): number => Math.round(Math.min(most, Math.max(least, value)))

export interface Sizes {
  size(beside: boolean): Size
  /** What a chunk of such a size found, and how long that took. */
  learn(beside: boolean, size: Size, found: { entries: number; met: number }, tookMs: number): void
}

export const createSizes = (): Sizes => {
  const sessions: Record<keyof typeof bounds, number> = { alone: bounds.alone.sessions, beside: bounds.beside.sessions / 5 }
  /** The part of the entries that is live. */
  let share = 1

  return {
    size: (beside) => {
      const kind = beside ? 'beside' : 'alone'
      return { sessions: sessions[kind], entries: clamp(sessions[kind] / share, sessions[kind], bounds[kind].entries) }
    },
    learn: (beside, asked, { entries, met }, tookMs) => {
      const kind = beside ? 'beside' : 'alone'
      if (entries > 0) share = Math.max(met / entries, 0.01)
      // No more than twice as much at a time: one fast chunk proves little.
      const factor = Math.min(2, Math.max(0.5, bounds[kind].ms / Math.max(tookMs, 1)))
      sessions[kind] = clamp(asked.sessions * factor, LEAST_SESSIONS, bounds[kind].sessions)
    },
  }
}
