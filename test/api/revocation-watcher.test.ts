import { expect, it, vi } from 'vitest'
import { MAX_WATCHERS, createRevocationWatch } from '../../src/api/revocation-watch.ts'
import type { ListedRevocation } from '../../src/store/revocation-list.ts'

const revocation = (id: string, terminated = 0): ListedRevocation => ({
  id, state: 'running', notifications: 'running', mode: 'revoke', reason: null, ticket: null, actor: { issuer: 'i', subject: 's' }, issuers: ['i'], reach: 'instance',
  containment: 'rows', cutoff: '', deliveriesPerSecond: null, expected: '1000', expectedExact: true, created: '', changed: '', committed: null, enforced: null,
  acknowledged: null, told: false, matched: String(terminated), terminated: String(terminated), deliveries: { total: '0', acknowledged: '0', pending: '0', failed: '0', moot: '0' },
})
const onStop = () => {}

it('reads what many watch once a round, and nothing when nobody watches', async () => {
  const asked: (readonly string[])[] = []
  const watch = createRevocationWatch({ readRevocations: async (ids) => {
    asked.push(ids)
    return ids.map((id) => revocation(id))
  } })
  const sights: string[] = []
  const watching = ['a', 'b', 'a', 'a'].map((id) => watch.watch(id, { onSight: ({ revocation: { id: seen } }) => void sights.push(seen), onStop }))
  await vi.waitFor(() => expect(sights.filter((id) => id === 'a').length).toBeGreaterThanOrEqual(6), { timeout: 10_000 })
  expect(asked.at(-1)).toEqual(['a', 'b'])
  expect(watch.watchers()).toBe(4)
  for (const one of watching) {
    one?.leave()
    one?.leave()
  }
  expect(watch.watchers()).toBe(0)
  const before = asked.length
  const last = watch.watch('c', { onSight: () => void sights.push('c'), onStop })
  await vi.waitFor(() => expect(sights).toContain('c'), { timeout: 10_000 })
  expect(asked.slice(before).every((ids) => ids.length === 1 && ids[0] === 'c')).toBe(true)
  last?.leave()
})

it('goes on where a read fails, and lets everybody go when it stops', async () => {
  let reads = 0
  const watch = createRevocationWatch({ readRevocations: async (ids) => {
    if (reads++ === 0) throw new Error('Postgres is away')
    return ids.map((id) => revocation(id))
  } })
  const seen: string[] = []
  let stopped = 0
  watch.watch('a', { onSight: ({ revocation: { id } }) => void seen.push(id), onStop: () => (stopped += 1) })
  watch.watch('b', { onSight: () => {}, onStop: () => (stopped += 1) })
  await vi.waitFor(() => expect(seen).toContain('a'), { timeout: 10_000 })
  watch.stop()
  expect(stopped).toBe(2)
  expect(watch.watch('c', { onSight: () => {}, onStop })).toBeNull()
})

it('takes a bounded number of watchers', () => {
  const watch = createRevocationWatch({ readRevocations: async () => [] })
  const all = Array.from({ length: MAX_WATCHERS }, (_, n) => watch.watch(`${n % 7}`, { onSight: () => {}, onStop }))
  expect(watch.watch('more', { onSight: () => {}, onStop })).toBeNull()
  all[0]?.leave()
  const next = watch.watch('more', { onSight: () => {}, onStop })
  expect(next).not.toBeNull()
  for (const one of [...all, next]) one?.leave()
  expect(watch.watchers()).toBe(0)
})

it('says how fast it goes and how long it takes, where that can be said', async () => {
  let terminated = 0
  let exact = true
  const watch = createRevocationWatch({ readRevocations: async (ids) => {
    terminated += 10
    return ids.map((id) => ({ ...revocation(id, terminated), expectedExact: exact }))
  } })
  const seen: { rate: number | null; secondsLeft: number | null }[] = []
  const watching = watch.watch('a', { onSight: ({ rate, secondsLeft }) => void seen.push({ rate, secondsLeft }), onStop })
  await vi.waitFor(() => expect(seen.at(-1)?.rate).toBeGreaterThan(0), { timeout: 10_000 })
  expect(seen[0]).toEqual({ rate: null, secondsLeft: null })
  const { rate, secondsLeft } = seen.at(-1) ?? { rate: 0, secondsLeft: 0 }
  expect(secondsLeft).toBeGreaterThanOrEqual(Math.floor((1_000 - terminated) / ((rate ?? 0) + 1)))
  exact = false
  await vi.waitFor(() => expect(seen.at(-1)).toMatchObject({ rate: expect.any(Number), secondsLeft: null }), { timeout: 10_000 })
  watching?.leave()
})
