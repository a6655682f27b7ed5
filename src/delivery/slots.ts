/**
 * Who may send at the same time, in one process: a fixed number of attempts, divided so that slow receivers delay
 * only each other.
 *
 * `quick` receivers have answered quickly of late, `slow` ones have not, `unproven` ones were never tried. An attempt that
 * turns out to hang hands its slot back and takes a slow one, while there is one; so a receiver that
 * stops answering gives up its share of the quick slots within a second.
 */
export type Pace = 'quick' | 'unproven' | 'slow'

export interface Slot {
  /** Gives the slot back. May be repeated. */
  release(): void
  /** Changes a quick or unproven slot for a slow one, if one is free. */
  moveToSlow(): void
}

export interface Slots {
  /** A slot at once, or null. */
  tryTake(pace: Pace): Slot | null
  /** Calls back with a slot in turn: first come, first served. Returns a function that leaves the line. */
  wait(pace: Pace, granted: (slot: Slot) => void): () => void
  /** Slots that nobody has. */
  free(pace: Pace): number
}

/** Most for those who are quick, a quarter for the slow, an eighth for those of whom nothing is known. */
const divide = (total: number): Record<Pace, number> => {
  const slow = Math.max(1, Math.floor(total / 4))
  const unproven = Math.max(1, Math.floor(total / 8))
  return { slow, unproven, quick: Math.max(1, total - slow - unproven) }
}

/** @param total attempts in flight at once (three at the least: one of each pace). */
export const createSlots = (total: number): Slots => {
  const free = divide(total)
  const lines: Record<Pace, Set<(slot: Slot) => void>> = { quick: new Set(), unproven: new Set(), slow: new Set() }

  const giveBack = (pace: Pace): void => {
    free[pace] += 1
    const [first] = lines[pace]
    if (first === undefined) return
    lines[pace].delete(first)
    const slot = tryTake(pace)
    if (slot !== null) first(slot)
  }

  const tryTake = (wanted: Pace): Slot | null => {
    if (free[wanted] === 0) return null
    let held: Pace | null = wanted
    free[wanted] -= 1
    return {
      release: () => {
        if (held === null) return
        const pace = held
        held = null
        giveBack(pace)
      },
      moveToSlow: () => {
        if (held === null || held === 'slow' || free.slow === 0) return
        const pace = held
        free.slow -= 1
        held = 'slow'
        giveBack(pace)
      },
    }
  }

  return {
    tryTake,
    wait: (pace, granted) => {
      lines[pace].add(granted)
      return () => void lines[pace].delete(granted)
    },
    free: (pace) => free[pace],
  }
}
