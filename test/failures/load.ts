/** A light, steady load: one request each few milliseconds, whatever becomes of those before it. */
import { vi } from 'vitest'

export interface Load<T> {
  /** Resolves when so many more than now are answered, one way or the other. */
  untilAnswered(more: number): Promise<void>
  /** Begins no more, waits for those under way, and returns what each came to. */
  stop(): Promise<Map<string, T>>
}

/** @param ask must not reject: what went wrong is an answer too. Runs until stopped, or out of ids. */
export const startLoad = <T>(options: { ids: readonly string[]; everyMs: number; ask: (id: string) => Promise<T> }): Load<T> => {
  const { ids, everyMs, ask } = options
  const answers = new Map<string, T>()
  const underWay: Promise<unknown>[] = []
  let next = 0
  const timer = setInterval(() => {
    const id = ids[next]
    next += 1
    if (id === undefined) clearInterval(timer)
    else underWay.push(ask(id).then((answer) => answers.set(id, answer)))
  }, everyMs)
  return {
    untilAnswered: async (more) => {
      const goal = answers.size + more
      if (goal > ids.length) throw new Error('The load has too few ids')
      await vi.waitUntil(() => answers.size >= goal, { timeout: 30_000, interval: 20 })
    },
    stop: async () => {
      clearInterval(timer)
      await Promise.all(underWay)
      return answers
    },
  }
}
