import { describe, expect, it } from 'vitest'
import { createCoalesce } from '../../src/store/coalesce.ts'

/** Queries that the test answers by hand. */
const createQueries = () => {
  const sent: { asks: readonly number[]; answer: () => void; fail: (error: Error) => void }[] = []
  const run = (asks: readonly number[]): Promise<readonly number[]> =>
    new Promise((resolve, reject) => {
      sent.push({ asks, answer: () => resolve(asks.map((ask) => ask * 10)), fail: reject })
    })
  return { sent, run }
}

const turn = () => new Promise((resolve) => setImmediate(resolve))
const limits = { maxBatch: 100, maxInFlight: 2, maxWaiting: 1_000 }

describe('coalescing', () => {
  it('makes one query of what comes in one turn, and answers each its own', async () => {
    const { sent, run } = createQueries()
    const ask = createCoalesce({ run, ...limits })
    const answers = Promise.all([ask(1), ask(2), ask(3)])
    await turn()
    expect(sent.map(({ asks }) => asks)).toEqual([[1, 2, 3]])
    sent[0]?.answer()
    expect(await answers).toEqual([10, 20, 30])
  })

  it('never joins a query already sent', async () => {
    const { sent, run } = createQueries()
    const ask = createCoalesce({ run, ...limits })
    void ask(1)
    await turn()
    void ask(1)
    await turn()
    expect(sent).toHaveLength(2)
  })

  it('sends at most so many at once; what comes meanwhile goes together', async () => {
    const { sent, run } = createQueries()
    const ask = createCoalesce({ run, ...limits })
    for (const n of [1, 2, 3, 4, 5]) {
      void ask(n)
      await turn()
    }
    expect(sent.map(({ asks }) => asks)).toEqual([[1], [2]])
    sent[0]?.answer()
    await turn()
    expect(sent.map(({ asks }) => asks)).toEqual([[1], [2], [3, 4, 5]])
  })

  it('bounds a query, and how many wait', async () => {
    const { sent, run } = createQueries()
    const ask = createCoalesce({ run, maxBatch: 2, maxInFlight: 1, maxWaiting: 3 })
    const asked = [1, 2, 3].map((n) => ask(n))
    await expect(ask(4)).rejects.toMatchObject({ kind: 'overloaded' })
    await turn()
    expect(sent.map(({ asks }) => asks)).toEqual([[1, 2]])
    sent[0]?.answer()
    await turn()
    sent[1]?.answer()
    expect(await Promise.all(asked)).toEqual([10, 20, 30])
  })

  it('a failing query fails its own asks and stops nothing', async () => {
    const { sent, run } = createQueries()
    const ask = createCoalesce({ run, ...limits, maxInFlight: 1 })
    const first = ask(1)
    await turn()
    const second = ask(2)
    sent[0]?.fail(new Error('gone'))
    await expect(first).rejects.toThrow('gone')
    await turn()
    sent[1]?.answer()
    expect(await second).toBe(20)
  })

  it('refuses a query that answers too little instead of leaving asks to hang', async () => {
    const ask = createCoalesce<number, number>({ run: async () => [1], ...limits })
    const both = Promise.allSettled([ask(1), ask(2)])
    expect((await both).map(({ status }) => status)).toEqual(['rejected', 'rejected'])
  })
})
