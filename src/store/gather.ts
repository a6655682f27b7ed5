/**
 * Gathers items into batches: what is idle begins at once; what arrives while `inFlight` batches are under way waits
 * and goes together, `atMost` at a time. "At once" is the end of this turn of the event loop, so that requests that
 * arrived together share a batch.
 */
export interface Gather<T> {
  push(item: T): void
  pushAll(items: readonly T[]): void
  /** Items that have not begun. */
  size(): number
  /** Takes back everything that has not begun. */
  takeAll(): T[]
}

export const createGather = <T>(deps: {
  atMost: number
  inFlight: number
  /** Resolves when the next batch may begin. A rejection is a fault of the caller's, and frees the place too. */
  run: (items: T[]) => Promise<void>
  /** Items that no longer matter are left out. */
  matters: (item: T) => boolean
}): Gather<T> => {
  const { atMost, inFlight, run, matters } = deps
  let gathered: T[] = []
  let running = 0
  let scheduled = false

  const done = () => {
    running -= 1
    flush()
  }

  const flush = () => {
    while (running < inFlight && gathered.length > 0) {
      const batch = (gathered.length <= atMost ? gathered.splice(0) : gathered.splice(0, atMost)).filter(matters)
      if (batch.length === 0) continue
      running += 1
      run(batch).then(done, done)
    }
  }

  const schedule = () => {
    if (scheduled || running >= inFlight) return
    scheduled = true
    setImmediate(() => {
      scheduled = false
      flush()
    })
  }

  return {
    push: (item) => {
      gathered.push(item)
      schedule()
    },
    pushAll: (items) => {
      if (items.length === 0) return
      for (const item of items) gathered.push(item)
      schedule()
    },
    size: () => gathered.length,
    takeAll: () => {
      const all = gathered
      gathered = []
      return all
    },
  }
}
