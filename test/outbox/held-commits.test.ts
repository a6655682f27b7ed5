/** Whoever records that caches were told of a commit holds it, mostly in the moment in which the router looks at it first. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createRouteRevocations } from '../../src/outbox/route-revocations.ts'
import { createRoute } from '../../src/outbox/route.ts'
import type { Database } from '../../src/store/postgres.ts'
import { terminateSessions } from '../../src/store/terminations.ts'
import { MAX_TOKEN_LIFETIME_SECONDS, openGround } from '../delivery/ground.ts'
import type { Ground } from '../delivery/ground.ts'
import { endByRevocation, seedRevocation } from '../harness/revocations.ts'
import { command, seedSessions } from '../harness/seed.ts'

const url = 'https://rp.example/logout'

let ground: Ground
beforeAll(async () => { ground = await openGround() })
afterAll(() => ground.close())

/** Holds all commits that are there, as an update of them does that is not committed yet. */
const holdCommits = async (): Promise<{ letGo: () => Promise<void> }> => {
  const holder = await ground.sql.connect()
  await holder.query('BEGIN')
  await holder.query('SELECT id FROM commits FOR NO KEY UPDATE')
  let held = true
  return {
    letGo: async () => {
      if (!held) return
      held = false
      await holder.query('ROLLBACK')
      holder.release()
    },
  }
}

/** The same database; `then` comes after each call of a method, before its result is returned. */
const after = (method: '$queryRawUnsafe' | '$transaction', then: () => Promise<void> | void): Database =>
  new Proxy(ground.db, {
    get: (target, name: keyof Database) => {
      if (name !== method) return target[name] as unknown
      return async (...args: unknown[]) => {
        const result = await (target[method] as (...args: unknown[]) => Promise<unknown>).apply(target, args)
        await then()
        return result
      }
    },
  })

const deps = (db: Database) => ({ db, wakeReceiver: () => {}, maxTokenLifetimeSeconds: MAX_TOKEN_LIFETIME_SECONDS })

describe('a commit that somebody holds', () => {
  it('is handed on by the run that passed over it, once it is let go', async () => {
    await ground.put('single', { url, clientId: 'single' })
    await seedSessions(ground.sql, [{ id: 'single', clients: [{ clientId: 'single' }] }])
    await terminateSessions(ground.db, [command('single')])
    const { letGo } = await holdCommits()
    await createRoute(deps(after('$queryRawUnsafe', letGo)))()
    expect(await ground.states('single')).toEqual({ pending: 1 })
  })

  it('is handed on by the run that passed over it also where a revocation made it', async () => {
    await ground.put('chunk', { url, clientId: 'chunk' })
    await seedSessions(ground.sql, [{ id: 'chunk', clients: [{ clientId: 'chunk' }] }])
    await endByRevocation(ground.sql, await seedRevocation(ground.sql), ['chunk'])
    const { letGo } = await holdCommits()
    await createRouteRevocations(deps(after('$transaction', letGo)))()
    expect(await ground.states('chunk')).toEqual({ pending: 1 })
  })

  it('is left to upkeep where it stays held: a run looks a few times and ends', async () => {
    await ground.put('long', { url, clientId: 'long' })
    await seedSessions(ground.sql, ['long-0', 'long-1'].map((id) => ({ id, clients: [{ clientId: 'long' }] })))
    await terminateSessions(ground.db, [command('long-0')])
    await endByRevocation(ground.sql, await seedRevocation(ground.sql), ['long-1'])
    const { letGo } = await holdCommits()
    const looks = { single: 0, chunk: 0 }
    await createRoute(deps(after('$queryRawUnsafe', () => void (looks.single += 1))))()
    await createRouteRevocations(deps(after('$transaction', () => void (looks.chunk += 1))))()
    await letGo()
    expect(looks).toEqual({ single: 11, chunk: 6 })
    expect(await ground.states('long')).toEqual({})
  })
})
