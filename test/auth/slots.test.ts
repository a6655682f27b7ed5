import { expect, it } from 'vitest'
import { createSlots } from '../../src/auth/slots.ts'

it('runs so many at once, lets so many wait in order, and refuses the rest', async () => {
  const withSlot = createSlots({ atOnce: 2, maxWaiting: 2 })
  const finish: (() => void)[] = []
  const started: number[] = []
  const work = (n: number) => withSlot(() => new Promise<number>((resolve) => {
    started.push(n)
    finish.push(() => resolve(n))
  }))
  const [first, second, third, fourth] = [work(1), work(2), work(3), work(4)]
  await expect(work(5)).rejects.toMatchObject({ kind: 'overloaded' })
  expect(started).toEqual([1, 2])
  finish[0]?.()
  await first
  await expect.poll(() => started).toEqual([1, 2, 3])
  finish[1]?.()
  await second
  await expect.poll(() => started).toEqual([1, 2, 3, 4])
  finish[2]?.()
  finish[3]?.()
  expect(await Promise.all([third, fourth])).toEqual([3, 4])
})

it('gives the slot back when the work fails', async () => {
  const withSlot = createSlots({ atOnce: 1, maxWaiting: 0 })
  await expect(withSlot(() => Promise.reject(new Error('failed')))).rejects.toThrow('failed')
  expect(await withSlot(async () => 7)).toBe(7)
})
