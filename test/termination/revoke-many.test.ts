/** Very many revocations in one process, with fewer connections than revocations. */
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { openDatabase } from '../../src/store/postgres.ts'
import { createPace } from '../../src/termination/revoke-pace.ts'
import { readInteractiveAge } from '../../src/store/revocation-clocks.ts'
import { createRevokeRig } from './revoke-rig.ts'
import type { RevokeRig } from './revoke-rig.ts'

let rig: RevokeRig
beforeAll(async () => { rig = await createRevokeRig() })
afterAll(() => rig.close())

it('all of very many that come at once are done, with far fewer connections', async () => {
  await rig.seed('crowd', 60)
  const ids = await Promise.all(Array.from({ length: 60 }, (_, n) => rig.accept({ filter: { sessionIds: [`crowd-${String(n + 1).padStart(8, '0')}`] } })))
  const few = openDatabase({ url: rig.url, name: 'revoke', max: 3, statementTimeoutMs: 30_000 })
  const engine = rig.engine({ db: few })
  try {
    const outcomes = await Promise.allSettled(ids.map((id) => engine.advance(id)))
    expect(outcomes.filter(({ status }) => status === 'rejected')).toEqual([])
    expect(await rig.live('crowd')).toBe(0)
    expect(await rig.one(`SELECT count(*)::int AS done FROM revocations WHERE id = ANY($1::uuid[]) AND state = 'done'`, [ids])).toEqual({ done: 60 })
  } finally {
    await engine.stop()
    await few.$disconnect()
  }
}, 60_000)

it('a helper that fails while others work fails the run, and nothing else', async () => {
  await rig.seed('helped', 60_000)
  const id = await rig.accept({ filter: { resourceOwners: ['helped'] } })
  const real = createPace({ readInteractiveAge: () => readInteractiveAge(rig.db) })
  let running = 0
  let failed = false
  const engine = rig.engine({
    pace: {
      ...real,
      turn: async (work, signal) => {
        running += 1
        try {
          const first = running === 1
          await new Promise((resolve) => setImmediate(resolve))
          // Two at once, and the one who came first is who helps.
          if (first && running > 1 && !failed) {
            failed = true
            throw new Error('the connection was lost')
          }
          return await real.turn(work, signal)
        } finally {
          running -= 1
        }
      },
    },
  })
  await expect(engine.advance(id)).rejects.toThrow('the connection was lost')
  await engine.advance(id)
  await vi.waitFor(async () => expect(await rig.truth(id)).toMatchObject({ state: 'done', terminated: 60_000, matched: 60_000 }), { timeout: 10_000 })
  await engine.stop()
}, 60_000)
