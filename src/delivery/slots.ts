/**
 * Who may send at the same time, in one process: a fixed number of slots, divided so that slow receivers delay only
 * each other.
 *
 * `quick` receivers have answered quickly of late, `slow` ones have not, `unproven` ones were never tried. A quick or
 * unproven attempt that turns out to hang is set aside and its slot goes on to others, so a receiver that stops
 * answering holds nobody's slots for longer than it takes to see that; as many as there are slots may be aside.
 */
export type Pace = 'quick' | 'unproven' | 'slow'

export interface Slot {
  /** Gives the slot back. May be repeated. */
  release(): void
  /** The attempt hangs: its slot is given back before it ends, where there is room aside. */
  setAside(): void
}

export interface Slots {
  /** A slot at once, or null. */
  tryTake(pace: Pace): Slot | null
  /** Calls back with a slot in turn: first come, first served. Returns a function that leaves the line. */
  wait(pace: Pace, granted: (slot: Slot) => void): () => void
  /** Slots that nobody has. */
  free(pace: Pace): number
  /** Attempts that were set aside and have not ended. */
  aside(): number
}

/** Most for those who are quick, a quarter for the slow, an eighth for those of whom nothing is known. */
const divide = (total: number): Record<Pace, number> => {
  const slow = Math.max(1, Math.floor(total / 4))
  const unproven = Math.max(1, Math.floor(total / 8))
  return { slow, unproven, quick: Math.max(1, total - slow - unproven) }
}

/** @param total attempts in flight at once, without those aside (three at the least: one of each pace). */
export const createSlots = (total: number): Slots => {
  const free = divide(total)
  const lines: Record<Pace, Set<(slot: Slot) => void>> = { quick: new Set(), unproven: new Set(), slow: new Set() }
  let aside = 0

  const giveBack = (pace: Pace): void => {
    free[pace] += 1
    const [first] = lines[pace]
    if (first === undefined) return
    lines[pace].delete(first)
    const slot = tryTake(pace)
    if (slot !== null) first(slot)
  }

  const tryTake = (pace: Pace): Slot | null => {
    if (free[pace] === 0) return null
    let state: 'held' | 'aside' | 'released' = 'held'
    free[pace] -= 1
    return {
      release: () => {
        const was = state
        state = 'released'
        if (was === 'aside') aside -= 1
        else if (was === 'held') giveBack(pace)
      },
      setAside: () => {
        if (state !== 'held' || pace === 'slow' || aside >= total) return
        state = 'aside'
        aside += 1
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
    aside: () => aside,
  }
}
