/** Commands whose reader leaves before they have said a word, as that of `curfew … | head -1` may. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startApi } from '../api/api.ts'
import type { TestApi } from '../api/api.ts'
import { settingsFor } from '../harness/processes.ts'
import { seedSessions } from '../harness/seed.ts'

const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url))

// Nothing ends what is accepted here: a revocation stays as it is.
let api: TestApi
let settings: Record<string, string>
beforeAll(async () => {
  api = await startApi()
  settings = {
    ...settingsFor({ databaseUrl: api.database.url, redisUrl: null, issuers: [{ issuer: api.issuer.url, audience: 'curfew', instance: true }] }),
    CURFEW_URL: `http://127.0.0.1:${await api.listen()}`,
    CURFEW_TOKEN: await api.issuer.token({ sub: 'responder', permissions: ['revocation.read', 'revocation.write'] }),
  }
  await seedSessions(api.database.sql, [{ id: 's1', issuer: api.issuer.url }])
})
afterAll(() => api.close())

/** What a command without a reader comes to. @param leaves which of its streams nobody reads. */
const unread = async (leaves: 'stdout' | 'stderr', ...parameters: string[]) => {
  const child = spawn(process.execPath, [cli, ...parameters], { env: { PATH: process.env['PATH'], ...settings } })
  let said = ''
  child[leaves].destroy()
  child[leaves === 'stdout' ? 'stderr' : 'stdout'].on('data', (chunk: Buffer) => (said += chunk.toString('utf8')))
  const [code] = (await once(child, 'close')) as [number]
  return { code, said }
}
const accepted = async () =>
  (await api.database.sql.query<{ id: string; state: string }>('SELECT id::text, state::text FROM revocations ORDER BY id')).rows

describe('a command whose reader has left', () => {
  it('does what it was asked for and exits as it would have', async () => {
    expect(await unread('stdout', 'config', 'print')).toEqual({ code: 0, said: '' })
    expect(await unread('stdout', '--help')).toEqual({ code: 0, said: '' })
    expect(await unread('stderr', 'revoke', '--reason', 'x')).toEqual({ code: 2, said: '' })
  })

  it('says by its exit code that a revocation was accepted, whether or not it is watched', async () => {
    expect(await unread('stdout', 'revoke', '--org', 'o1', '--reason', 'x', '--yes')).toEqual({ code: 0, said: '' })
    expect(await unread('stdout', 'revoke', '--org', 'o1', '--reason', 'x', '--yes', '--watch')).toEqual({ code: 0, said: '' })
    expect((await accepted()).map(({ state }) => state)).toEqual(['running', 'running'])
  })

  it('ends with its reader where it is there for the reader alone, and does not say that anything was ended or written', async () => {
    await unread('stdout', 'revoke', '--org', 'o1', '--reason', 'x', '--yes')
    const [revocation] = await accepted()
    expect(await unread('stdout', 'revocations', 'watch', revocation?.id ?? '')).toEqual({ code: 1, said: '' })
    expect(await unread('stdout', 'revocations', 'report', revocation?.id ?? '')).toEqual({ code: 1, said: '' })
  })
})
