/** G8: how revocations give way to log-outs. */
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { terminateSessions } from '../../src/store/terminations.ts'
import { createPace } from '../../src/termination/revoke-pace.ts'
import { createSizes } from '../../src/termination/revoke-size.ts'
import { command } from '../harness/seed.ts'
import { createRevokeRig } from './revoke-rig.ts'
import type { RevokeRig } from './revoke-rig.ts'

/** Turns that end when they are told to. */
const createTurns = (pace: ReturnType<typeof createPace>, signal?: AbortSignal) => {
  const running: { beside: boolean; end: () => void }[] = []
  const begin = () => pace.turn((beside) => new Promise<void>((end) => running.push({ beside, end: () => end() })), signal)
  const settle = () => new Promise((resolve) => { setImmediate(resolve) })
  return { running, begin, settle }
}

describe('the pace of revocations', () => {
  it('alone is three chunks at once, whoever they belong to', async () => {
    const { running, begin, settle } = createTurns(createPace({ readInteractiveAge: async () => null }))
    const all = Array.from({ length: 5 }, begin)
    await settle()
    expect(running).toHaveLength(3)
    running[1]?.end()
    await settle()
    expect(running).toHaveLength(4)
    running[0]?.end()
    await settle()
    expect(running).toHaveLength(5)
    for (const { end } of running) end()
    await Promise.all(all)
  })

  it('beside log-outs is one chunk at a time, and then three times as long nothing', async () => {
    let nowMs = 0
    const pace = createPace({ readInteractiveAge: async () => 0, elapsed: () => nowMs })
    const { running, begin, settle } = createTurns(pace)
    const all = [begin(), begin()]
    await settle()
    expect(running.map(({ beside }) => beside)).toEqual([true])
    expect(pace.atOnce()).toBe(1)
    nowMs += 10
    running[0]?.end()
    await settle()
    expect(running).toHaveLength(1)
    nowMs += 29
    await settle()
    expect(running).toHaveLength(1)
    nowMs += 2
    await vi.waitFor(() => expect(running).toHaveLength(2), { timeout: 1_000, interval: 2 })
    running[1]?.end()
    await Promise.all(all)
  })

  it('is slow from the first log-out of its own process on, and for a while after the last', async () => {
    let nowMs = 0
    const pace = createPace({ readInteractiveAge: async () => null, elapsed: () => nowMs })
    expect(pace.atOnce()).toBe(3)
    let answer: () => void = () => {}
    const logOut = pace.during(() => new Promise<void>((resolve) => { answer = resolve }))
    expect(pace.atOnce()).toBe(1)
    nowMs += 60_000
    expect(pace.atOnce()).toBe(1)
    answer()
    await logOut
    nowMs += 1_000
    expect(pace.atOnce()).toBe(1)
    nowMs += 1_000
    expect(pace.atOnce()).toBe(3)
  })

  it('lets nobody wait for a turn in a process that stops', async () => {
    const stopping = new AbortController()
    const { running, begin, settle } = createTurns(createPace({ readInteractiveAge: async () => 0, elapsed: () => 0 }), stopping.signal)
    const all = [begin(), begin()]
    await settle()
    stopping.abort()
    running[0]?.end()
    await vi.waitFor(() => expect(running).toHaveLength(2), { timeout: 1_000, interval: 2 })
    running[1]?.end()
    await Promise.all(all)
  })
})

describe('the size of a chunk', () => {
  it('follows the time that chunks take, and never beyond its bounds', () => {
    const sizes = createSizes()
    for (let times = 0; times < 20; times += 1) sizes.learn(true, sizes.size(true), { entries: 50, met: 50 }, 1)
    expect(sizes.size(true)).toEqual({ sessions: 250, entries: 250 })
    for (let times = 0; times < 20; times += 1) sizes.learn(true, sizes.size(true), { entries: 50, met: 50 }, 100)
    expect(sizes.size(true)).toEqual({ sessions: 20, entries: 20 })
    expect(sizes.size(false)).toEqual({ sessions: 2_000, entries: 2_000 })
  })

  it('looks at more entries where most of them are dead', () => {
    const sizes = createSizes()
    sizes.learn(false, sizes.size(false), { entries: 2_000, met: 200 }, 200)
    expect(sizes.size(false)).toEqual({ sessions: 2_000, entries: 20_000 })
    sizes.learn(false, sizes.size(false), { entries: 20_000, met: 0 }, 200)
    expect(sizes.size(false)).toEqual({ sessions: 2_000, entries: 20_000 })
    sizes.learn(false, sizes.size(false), { entries: 2_000, met: 2_000 }, 200)
    expect(sizes.size(false)).toEqual({ sessions: 2_000, entries: 2_000 })
  })
})

describe('a revocation beside log-outs of another process', () => {
  let rig: RevokeRig
  beforeAll(async () => { rig = await createRevokeRig() })
  afterAll(() => rig.close())

  it('G8: goes in small chunks as long as they come, which it sees in Postgres alone, and fast when they end', async () => {
    await rig.seed('bulk', 12_000)
    await rig.seed('calm', 5_000)
    let running = true
    const logOuts = (async () => {
      for (let n = 1; running; n += 1) await terminateSessions(rig.db, [command(`calm-${String(n).padStart(8, '0')}`)])
    })()
    await vi.waitFor(async () => expect(await rig.one('SELECT count(*) > 0 AS seen FROM commits')).toEqual({ seen: true }), { timeout: 5_000, interval: 5 })
    const engine = rig.engine()
    const id = await rig.accept({ filter: { resourceOwners: ['bulk'] } })
    const ended = engine.advance(id)
    await vi.waitFor(async () => expect((await rig.truth(id)).terminated).toBeGreaterThan(1_500), { timeout: 20_000, interval: 10 })
    const slow = await rig.one<{ most: number; chunks: number }>('SELECT max(sessions) AS most, count(*)::int AS chunks FROM commits WHERE revocation_id = $1', [id])
    expect(slow.most).toBeLessThanOrEqual(250)
    running = false
    await logOuts
    await ended
    expect(await rig.truth(id)).toMatchObject({ state: 'done', terminated: 12_000 })
    expect((await rig.one<{ most: number }>('SELECT max(sessions) AS most FROM commits WHERE revocation_id = $1', [id])).most).toBeGreaterThan(250)
  }, 60_000)
})
