/** A session's row that someone else holds. Fault F27. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { ServiceProcess } from '../harness/processes.ts'
import { redisMissing, startRedis } from '../harness/redis.ts'
import { WORST_ANSWER_MS, startCluster } from './cluster.ts'
import type { Cluster } from './cluster.ts'

describe.each(['redis', 'postgres'] as const)('a locked row, queue on %s', (kind) => {
  describe.skipIf(kind === 'redis' && redisMissing)('', () => {
    let cluster: Cluster
    let api: ServiceProcess
    let impatient: ServiceProcess
    beforeAll(async () => {
      cluster = await startCluster({ redis: kind === 'redis' ? await startRedis() : null })
      ;[api, impatient] = await Promise.all([cluster.start('api'), cluster.start('api', { COMMIT_WAIT: '1500' }), cluster.start('worker')])
      await Promise.all([cluster.untilQueued(api), cluster.untilQueued(impatient)])
    })
    afterAll(() => cluster.stop())
    afterEach(() => unlock())

    let unlock = async () => {}
    const lock = async (id: string) => {
      const other = await cluster.database.sql.connect()
      await other.query('BEGIN')
      await other.query('SELECT FROM sessions WHERE id = $1 FOR UPDATE', [id])
      unlock = async () => {
        unlock = async () => {}
        await other.query('COMMIT')
        other.release()
      }
    }

    it('G8: delays only its own session, which is answered once the lock goes', async () => {
      const [locked = '', ...others] = await cluster.live(101)
      await lock(locked)
      let isAnswered = false
      const late = cluster.end(api, locked).finally(() => { isAnswered = true })
      const answers = new Map(await Promise.all(others.map(async (id) => [id, await cluster.end(api, id)] as const)))
      await cluster.expectTruth(answers)
      expect(isAnswered).toBe(false)
      expect(await cluster.committed([locked])).toEqual(new Map())
      await unlock()
      await cluster.expectTruth(new Map([[locked, await late]]))
    })

    it('G1, G3: held for longer than the wait it is 504, and asking again tells the truth', async () => {
      const [id = ''] = await cluster.live(1)
      await lock(id)
      const first = await cluster.end(impatient, id)
      expect(first).toMatchObject({ status: 504, body: { code: 4 } })
      expect(first.ms).toBeGreaterThan(1_400)
      expect(first.ms).toBeLessThan(1_500 + WORST_ANSWER_MS)
      expect(await cluster.committed([id])).toEqual(new Map())
      await unlock()
      await cluster.expectTruth(new Map([[id, await cluster.end(impatient, id)]]))
      await cluster.expectTruth(new Map([[id, await cluster.end(api, id)]]))
    })
  })
})
