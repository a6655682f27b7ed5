/** The API with an issuer, two receivers, a responder, and revocations that have ended. */
import type { LightMyRequestResponse } from 'fastify'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { verifyReport } from '../../src/cli/verify-report.ts'
import { startApi } from './api.ts'
import { seedRevocation } from './ended-revocation.ts'

export type ReportRig = Awaited<ReturnType<typeof startReportRig>>

export const startReportRig = async () => {
  const api = await startApi()
  const port = await api.listen()
  const folder = await mkdtemp(join(tmpdir(), 'curfew-test-report-'))
  const jwks = join(folder, 'jwks.json')
  const responder = await api.bearer({ sub: 'responder', permissions: ['revocation.read', 'receiver.write'] })
  await api.database.sql.query(
    `INSERT INTO receivers (id, type, url, issuer, client_id) VALUES ('shop', 'backchannel_logout', 'https://shop.example', $1, 'shop'), ('wiki', 'backchannel_logout', 'https://wiki.example', $1, 'wiki')`,
    [api.issuer.url])
  let counter = 0

  /** Keeps a text as a file, and the keys of the issuer beside it. */
  const keep = async (text: string): Promise<string> => {
    const file = join(folder, 'report')
    await writeFile(file, text)
    await writeFile(jwks, (await api.app.inject(`/v1/issuers/${encodeURIComponent(api.issuer.url)}/jwks.json`)).body)
    return file
  }

  return {
    api,
    port,
    folder,
    jwks,
    responder,
    keep,
    ask: (id: string, options: { as?: string; format?: string; accept?: string } = {}): Promise<LightMyRequestResponse> =>
      api.app.inject({
        url: `/v1/revocations/${id}/report${options.format === undefined ? '' : `?format=${options.format}`}`,
        headers: { authorization: options.as ?? responder, ...(options.accept === undefined ? {} : { accept: options.accept }) },
      }),
    verify: async (text: string) => verifyReport(await keep(text), { jwks, curfewUrl: null }),
    /** So many were ended before. */
    count: () => counter,
    /** Two sessions: a shop that acknowledged and a legacy client that nobody tells, and a wiki that failed. */
    ended: async (change: Partial<Parameters<typeof seedRevocation>[1]> = {}) => {
      const [one, two] = [`a${++counter}`, `b${counter}`]
      const id = await seedRevocation(api.database.sql, {
        issuer: api.issuer.url,
        sessions: [{ id: one, clients: [{ clientId: 'shop' }, { clientId: 'legacy' }] }, { id: two, userId: 'u2', clients: [{ clientId: 'wiki' }] }],
        told: [{ session: one, receiver: 'shop', clientId: 'shop', state: 'acknowledged' }, { session: two, receiver: 'wiki', clientId: 'wiki', state: 'failed', outcome: 'http_500' }],
        ...change,
      })
      return { id, one, two }
    },
    close: async () => {
      await api.close()
      await rm(folder, { recursive: true })
    },
  }
}
