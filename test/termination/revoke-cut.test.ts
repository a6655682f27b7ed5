/** Cutting slices off the last one of a revocation, beside others who do the same. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { Database } from '../../src/store/postgres.ts'
import { beginPasses, cutSlice, readRun } from '../../src/store/revocation-slices.ts'
import { chooseWalk } from '../../src/store/revocation-walk.ts'
import { createRevokeRig } from './revoke-rig.ts'
import type { RevokeRig } from './revoke-rig.ts'

let rig: RevokeRig
beforeAll(async () => { rig = await createRevokeRig() })
afterAll(() => rig.close())

/** Any number: whoever holds this advisory lock holds up the statements below. */
const GATE = 7

/** The same database, whose cuts wait at the gate between their snapshot and their first lock. */
const gated = (db: Database): Database =>
  new Proxy(db, {
    get: (target, name: keyof Database) => {
      if (name !== '$queryRawUnsafe') return target[name] as unknown
      return (text: string, ...values: unknown[]) =>
        target.$queryRawUnsafe(text.replace('FOR SHARE', `AND (SELECT true FROM pg_advisory_xact_lock_shared(${GATE})) FOR SHARE`), ...values)
    },
  })

const slices = async (id: string) =>
  (await rig.sql.query<{ number: number; start_key: string[]; until_key: string[] }>(
    'SELECT number, start_key, until_key FROM revocation_slices WHERE revocation_id = $1 ORDER BY number', [id])).rows

it('cuts nothing twice: a cut whose snapshot is older than another cut changes nothing', async () => {
  await rig.seed('cut', 5_000)
  const revocationId = await rig.accept({ filter: { resourceOwners: ['cut'] } })
  const run = await readRun(rig.db, revocationId)
  const walk = run === null ? null : await chooseWalk(rig.db, run.scope)
  if (walk === null) throw new Error('There is nothing to be walked')
  await beginPasses(rig.db, revocationId, walk)
  const asked = { revocationId, walk, entries: 1_000 }
  const gate = await rig.sql.connect()
  await gate.query(`SELECT pg_advisory_lock(${GATE})`)
  const late = cutSlice(gated(rig.db), asked)
  await expect.poll(async () => (await rig.sql.query(`SELECT FROM pg_stat_activity WHERE wait_event = 'advisory' AND datname = current_database()`)).rowCount).toBe(1)
  expect(await cutSlice(rig.db, asked)).toBe('cut')
  const before = await slices(revocationId)
  await gate.query(`SELECT pg_advisory_unlock(${GATE})`)
  gate.release()
  expect(await late).toBe('held')
  expect(await slices(revocationId)).toEqual(before)
  expect(await cutSlice(rig.db, asked)).toBe('cut')
  const [last, first, second] = await slices(revocationId)
  expect([first?.until_key, second?.until_key]).toEqual([second?.start_key, last?.start_key])
  await rig.engine().advance(revocationId)
  expect(await rig.truth(revocationId)).toMatchObject({ state: 'done', matched: 5_000, terminated: 5_000, events: 5_000 })
})
