import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { startIssuer } from '../harness/issuer.ts'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'
import { settingsFor, startProcess } from '../harness/processes.ts'
import type { ServiceProcess } from '../harness/processes.ts'
import { redisMissing, startRedis } from '../harness/redis.ts'
import type { TestRedis } from '../harness/redis.ts'
import { seedSessions } from '../harness/seed.ts'

const backends = ['redis', 'postgres'] as const

describe.each(backends)('one DELETE through an API process and a worker process, queue on %s', (kind) => {
  describe.skipIf(kind === 'redis' && redisMissing)('', () => {
    let issuer: Awaited<ReturnType<typeof startIssuer>>
    let database: TestDatabase
    let redis: TestRedis | null
    let api: ServiceProcess
    let worker: ServiceProcess
    let token: string

    beforeAll(async () => {
      issuer = await startIssuer()
      database = await createDatabase()
      redis = kind === 'redis' ? await startRedis() : null
      const settings = settingsFor({
        databaseUrl: database.url,
        redisUrl: redis?.url ?? null,
        issuers: [issuer.entry({ instance: true })],
      })
      worker = await startProcess({ ...settings, ROLES: 'worker' })
      api = await startProcess({ ...settings, ROLES: 'api' })
      token = await issuer.token({ permissions: ['session.delete'] })
      // Until a probe has made the round trip the API commits by itself.
      await vi.waitUntil(async () => ((await (await fetch(`${api.opsUrl}/readyz`)).json()) as { queue: string }).queue === 'ok', { timeout: 10_000, interval: 50 })
    })
    afterAll(async () => {
      await api.stop()
      await worker.stop()
      await redis?.stop()
      await database.drop()
      await issuer.close()
    })

    const end = (id: string) => fetch(`${api.apiUrl}/v2/sessions/${id}`, { method: 'DELETE', headers: { authorization: `Bearer ${token}` } })

    it('G1: answers 200 with the details of the committed event', async () => {
      await seedSessions(database.sql, [{ id: 's1', issuer: issuer.url, resourceOwner: '69629023906488334' }])
      const response = await end('s1')
      expect(response.status).toBe(200)
      const { rows } = await database.sql.query(`SELECT * FROM session_events WHERE session_id = 's1' AND type = 'session.terminated'`)
      expect(rows).toHaveLength(1)
      expect(await response.json()).toEqual({
        details: { sequence: '2', changeDate: rows[0].created_at.toISOString(), resourceOwner: '69629023906488334' },
      })
    })

    it('G3: 200 concurrent DELETEs of one session are one event and one answer', async () => {
      await seedSessions(database.sql, [{ id: 'storm', issuer: issuer.url }])
      const bodies = await Promise.all(Array.from({ length: 200 }, async () => {
        const response = await end('storm')
        expect(response.status).toBe(200)
        return response.text()
      }))
      expect(new Set(bodies).size).toBe(1)
      const { rows } = await database.sql.query(`SELECT FROM session_events WHERE session_id = 'storm' AND type = 'session.terminated'`)
      expect(rows).toHaveLength(1)
    })

    it('answers 404 for a session that nobody knows', async () => {
      const response = await end('nobody')
      expect(response.status).toBe(404)
      expect(await response.json()).toMatchObject({ code: 5, message: 'Session does not exist (QUERY-SFeaa)' })
    })

    it('is ready, and says what of', async () => {
      expect(await (await fetch(`${api.opsUrl}/readyz`)).json()).toEqual({ ready: true, postgres: 'ok', queue: 'ok', draining: false })
    })

    it('went through the queue, not around it', async () => {
      const metrics = await (await fetch(`${api.opsUrl}/metrics`)).text()
      expect(metrics).toContain('curfew_queue_available 1')
      expect(metrics).not.toContain('via="self"')
    })
  })
})
