/** A revocation that is contained by rules reaches guards with its acceptance: no worker has to be there. */
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { createGuard } from '../../src/client/index.ts'
import type { Guard } from '../../src/client/index.ts'
import { startCluster } from '../failures/cluster.ts'
import type { Cluster } from '../failures/cluster.ts'
import type { ServiceProcess } from '../harness/processes.ts'
import { redisMissing } from '../harness/redis.ts'

describe.each(['redis', 'http'])('a guard through %s', (through) => {
  describe.skipIf(through === 'redis' && redisMissing)('', () => {
    let cluster: Cluster
    let api: ServiceProcess
    let guard: Guard
    beforeAll(async () => {
      cluster = await startCluster(through === 'http' ? { redis: null } : {})
      const worker = await cluster.start('worker')
      api = await cluster.start('api')
      const token = await cluster.issuer.token({ sub: 'resource-server', permissions: ['session.read'] })
      // Without a worker it is stale soon, which is not what this is about.
      const onStale = 'failOpen'
      guard = await createGuard(through === 'redis' ? { redis: cluster.redis?.url ?? '', onStale } : { url: api.apiUrl, token, onStale })
      await worker.kill()
    })
    afterAll(async () => {
      await guard.close()
      await cluster.stop()
    })

    it('refuses what a revocation contains soon after its 202, though nothing is ended yet', async () => {
      const token = await cluster.issuer.token({ sub: 'responder', permissions: ['revocation.write'] })
      const [sessionId = ''] = await cluster.live(1, { userId: 'mallory' })
      const theirs = { issuer: cluster.issuer.url, sessionId, subject: 'mallory', organization: 'o1', born: Math.floor(Date.now() / 1_000) - 60 }
      const others = { ...theirs, sessionId: 'other', subject: 'alice' }
      expect([guard.check(theirs), guard.check(others)]).toEqual(['active', 'active'])
      const answer = await fetch(`${api.apiUrl}/v1/revocations`, {
        method: 'POST', headers: { authorization: `Bearer ${token}` }, body: JSON.stringify({ filter: { userIds: ['mallory'] }, reason: 'stolen laptop' }),
      })
      const acceptedMs = performance.now()
      expect(answer.status).toBe(202)
      await vi.waitFor(() => expect(guard.check(theirs)).toBe('cutoff'), { timeout: 5_000, interval: 1 })
      process.stdout.write(`refused ${(performance.now() - acceptedMs).toFixed(0)} ms after the 202\n`)
      expect(guard.check(others)).toBe('active')
      const { rows } = await cluster.database.sql.query('SELECT state FROM sessions WHERE id = $1', [sessionId])
      expect(rows).toEqual([{ state: 'active' }])
    })
  })
})
