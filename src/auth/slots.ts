/** At most so many at once, at most so many waiting: work of one kind, kept from taking the process with it. */
import { CurfewError } from '../errors.ts'

type WithSlot = <T>(work: () => Promise<T>) => Promise<T>

/** @throws (rejects) CurfewError overloaded where too many wait; else as the work does. First come, first served. */
export const createSlots = (options: { atOnce: number; maxWaiting: number }): WithSlot => {
  const waiting: (() => void)[] = []
  let running = 0
  const enter = async (): Promise<void> => {
    if (running < options.atOnce) {
      running += 1
      return
    }
    if (waiting.length >= options.maxWaiting) throw new CurfewError('overloaded')
    // A slot that becomes free is handed over, so `running` stays.
    await new Promise<void>((resolve) => waiting.push(resolve))
  }
  const leave = (): void => {
    const next = waiting.shift()
    if (next === undefined) running -= 1
    else next()
  }
  return async (work) => {
    await enter()
    try {
      return await work()
    } finally {
      leave()
    }
  }
}
