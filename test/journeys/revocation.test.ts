/**
 * An incident, end to end: a responder at a command line, an API process, a worker process, receivers that answer and one
 * that does not, and at the end a report that somebody else can check.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startCluster } from '../failures/cluster.ts'
import type { Cluster } from '../failures/cluster.ts'
import type { ServiceProcess } from '../harness/processes.ts'
import { answer, startReceiver } from '../harness/receiver.ts'
import type { TestReceiver } from '../harness/receiver.ts'
import { redisMissing } from '../harness/redis.ts'

const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url))
const SESSIONS = 1_200
/** A dozen commands, each a process that starts; on a busy machine more than a second each. */
const LONG_MS = 120_000

describe.each(['redis', 'postgres'] as const)('ending every session of an organization, queue on %s', (kind) => {
  describe.skipIf(kind === 'redis' && redisMissing)('', () => {
    let cluster: Cluster
    let api: ServiceProcess
    let shop: TestReceiver
    let wiki: TestReceiver
    let folder: string
    let environment: Record<string, string | undefined>

    beforeAll(async () => {
      cluster = await startCluster(kind === 'redis' ? {} : { redis: null })
      ;[shop, wiki, folder] = await Promise.all([startReceiver(), startReceiver(), mkdtemp(join(tmpdir(), 'curfew-test-journey-'))])
      await cluster.start('worker')
      api = await cluster.start('api')
      const token = await cluster.issuer.token({ sub: 'responder', permissions: ['revocation.read', 'revocation.write', 'session.read'] })
      environment = { PATH: process.env['PATH'], CURFEW_URL: api.apiUrl, CURFEW_TOKEN: token }
      wiki.always(answer(400, { body: 'who?' }))
      await cluster.putReceiver(api, 'shop', shop.url)
      await cluster.putReceiver(api, 'wiki', wiki.url)
      await seed('acme', SESSIONS, `CASE WHEN n % 100 = 0 THEN 'wiki' WHEN n % 100 = 1 THEN 'legacy' ELSE 'shop' END`)
      await seed('other', 5, `'shop'`)
    })
    afterAll(async () => {
      await cluster.stop()
      await Promise.all([shop.close(), wiki.close(), rm(folder, { recursive: true })])
    })

    /** Sessions of an organization, of as many users; the last one is `break-glass`. */
    const seed = (organization: string, count: number, client: string) => cluster.database.sql.query(
      `WITH s AS (
         INSERT INTO sessions (id, issuer, user_id, resource_owner, sequence, registration_hash, creator_issuer, creator_subject, born, created_at, change_date, expires_at)
         SELECT $1 || '-' || n, $2, CASE WHEN n = $3 THEN 'break-glass' ELSE 'user-' || n END, $1, 1, 'seed', $2, 'seeder', now(), now(), now(), now() + interval '1 hour'
         FROM generate_series(1, $3::int) n RETURNING *
       ), e AS (
         INSERT INTO session_events (session_id, sequence, type, actor_issuer, actor_subject, resource_owner, created_at)
         SELECT id, 1, 'session.added', issuer, 'seeder', resource_owner, created_at FROM s
       )
       INSERT INTO session_clients SELECT id, ${client}, id, user_id FROM s CROSS JOIN LATERAL (SELECT split_part(id, '-', 2)::int AS n) n`,
      [organization, cluster.issuer.url, count])

    const curfew = async (...parameters: string[]) => {
      const child = spawn(process.execPath, [cli, ...parameters], { cwd: folder, env: environment, stdio: ['ignore', 'pipe', 'pipe'] })
      let [out, err] = ['', '']
      child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString('utf8')))
      child.stderr.on('data', (chunk: Buffer) => (err += chunk.toString('utf8')))
      const [code] = (await once(child, 'close')) as [number]
      return { code, out, err }
    }
    const live = async (organization: string): Promise<string[]> =>
      (await cluster.database.sql.query<{ user_id: string }>(`SELECT user_id FROM sessions WHERE resource_owner = $1 AND state = 'active' ORDER BY user_id`, [organization])).rows.map((row) => row.user_id)

    it('G9: is previewed, confirmed, watched to its end, reported and proven', async () => {
      const scope = ['--org', 'acme', '--exclude-user', 'break-glass', '--reason', 'stolen laptops', '--ticket', 'INC-1']
      expect(await curfew('revoke', ...scope)).toEqual({ code: 2, out: '', err: 'Nobody can be asked here: say --yes to end the sessions, or --preview to see which they are.\n' })
      const preview = await curfew('revoke', ...scope, '--preview')
      expect(preview).toMatchObject({ code: 0, err: '' })
      expect(preview.out).toContain('1,199 sessions match. 1,199 users will have to sign in again.')
      expect(await live('acme')).toHaveLength(SESSIONS)

      const revoked = await curfew('revoke', ...scope, '--yes', '--watch')
      expect(revoked).toMatchObject({ code: 0, err: '' })
      expect(revoked.out).toMatch(/done, 1,199 sessions ended/)
      expect(revoked.out).not.toContain('\u001b')
      expect(await live('acme')).toEqual(['break-glass'])
      expect(await live('other')).toHaveLength(5)

      const listed = await curfew('revocations', 'list', '--state', 'done')
      expect(listed.out).toMatch(/ revoke {2}done, 1,199 sessions ended, .* by=responder {2}ticket=INC-1 {2}reason=stolen laptops\n$/)
      const [, id = ''] = listed.out.split('  ')
      const watched = await curfew('revocations', 'watch', `revocations/${id}`, '--until-told')
      expect(watched).toMatchObject({ code: 0, err: '' })
      // 11 of wiki, which refuses; 12 of legacy, whom nobody tells.
      expect(watched.out).toMatch(/1,176 of 1,187 receivers' messages acknowledged, 11 failed\n$/)
      expect(shop.requests).toHaveLength(1_176)
      expect((await curfew('revocations', 'show', id)).out).toMatch(/^acknowledged +20\d\d-/m)

      for (const format of ['json', 'csv', 'ndjson']) {
        const file = `report.${format}`
        expect(await curfew('revocations', 'report', id, '--format', format, '--output', file)).toMatchObject({ code: 0, err: '' })
        const verified = await curfew('verify-report', file)
        expect(verified).toMatchObject({ code: 0, err: '' })
        expect(verified.out).toContain('done, final: 1199 sessions ended, 0 remaining')
        const text = await readFile(join(folder, file), 'utf8')
        await writeFile(join(folder, file), text.replace('stolen laptops', 'spring cleaning'))
        expect(await curfew('verify-report', file)).toMatchObject({ code: 1, out: '', err: expect.stringContaining('Not verified: It was changed') })
      }
      const report = JSON.parse((await curfew('revocations', 'report', id)).out) as { report: Record<string, unknown> }
      expect(report.report).toMatchObject({
        final: true, containment: 'rules', rules: [{ organization: 'acme', user: null }], sessions: { terminated: '1199', remaining: '0', proven: true },
        receivers: [{ id: 'shop', acknowledged: '1176' }, { id: 'wiki', failed: '11', failures: { rejected: '11' } }],
        untold: [{ clientId: 'legacy', why: 'no_receiver', participants: 12 }],
        history: expect.arrayContaining([expect.objectContaining({ type: 'revocation.accepted', actor: { issuer: cluster.issuer.url, subject: 'responder' } })]),
      })

      wiki.always(answer(200))
      expect(await curfew('revocations', 'redeliver', id)).toEqual({ code: 0, out: '11 deliveries are sent again.\n', err: '' })
      expect((await curfew('revocations', 'watch', id, '--until-told')).out).toMatch(/1,187 of 1,187 receivers' messages acknowledged\n$/)
    }, LONG_MS)

    it('is steered', async () => {
      await seed('slow', 30, `'shop'`)
      const told = shop.requests.length
      const revoked = await curfew('revoke', '--org', 'slow', '--reason', 'x', '--deliveries-per-second', '1', '--yes')
      const id = /^revocation +(\S+)$/m.exec(revoked.out)?.[1] ?? ''
      expect((await curfew('revocations', 'pause', id)).err).toMatch(/^Cutoff rules are in force/)
      expect((await curfew('revocations', 'pause', id, '--only', 'notifications')).out).toMatch(/^state +\w+, notifications paused$/m)
      expect((await curfew('revocations', 'resume', id, '--only', 'notifications')).out).toMatch(/^state +\w+$/m)
      expect((await curfew('revocations', 'watch', id)).code).toBe(0)
      expect((await curfew('revocations', 'cancel', id, '--only', 'notifications')).out).toMatch(/^state +done, notifications cancelled$/m)
      expect((await curfew('revocations', 'watch', id, '--until-told')).out).toMatch(/\d+ failed\n$/)
      expect(shop.requests.length - told).toBeLessThan(30)
    }, LONG_MS)
  })
})
