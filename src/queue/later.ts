/** Items to be taken up again after a while, with one timer for all of them. */
export interface Later<T> {
  add(delayMs: number, items: readonly T[]): void
  /** Forgets everything. */
  clear(): void
}

/** @param run is given all that is due together; delays are kept to within a few milliseconds, and never shortened. */
export const createLater = <T>(run: (items: T[]) => void): Later<T> => {
  let groups: { dueMs: number; items: readonly T[] }[] = []
  let timer: NodeJS.Timeout | undefined
  let timerDueMs = Infinity

  const arm = () => {
    const nextMs = Math.min(...groups.map(({ dueMs }) => dueMs))
    if (nextMs >= timerDueMs) return
    clearTimeout(timer)
    timerDueMs = nextMs
    timer = setTimeout(fire, Math.max(1, Math.ceil(nextMs - performance.now())))
  }

  const fire = () => {
    timerDueMs = Infinity
    const now = performance.now()
    const due = groups.filter(({ dueMs }) => dueMs <= now)
    groups = groups.filter(({ dueMs }) => dueMs > now)
    arm()
    if (due.length > 0) run(due.flatMap(({ items }) => items))
  }

  return {
    add: (delayMs, items) => {
      if (items.length === 0) return
      groups.push({ dueMs: performance.now() + delayMs, items })
      arm()
    },
    clear: () => {
      clearTimeout(timer)
      timerDueMs = Infinity
      groups = []
    },
  }
}
