/** Who may end a session: the whole table, against real sessions in a real Postgres. */
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createAuthorizeEnd } from '../../src/auth/authorize-end.ts'
import type { EndDecision } from '../../src/auth/authorize-end.ts'
import type { Caller, Reach } from '../../src/auth/caller.ts'
import { newSessionToken } from '../../src/auth/session-token.ts'
import { CurfewError } from '../../src/errors.ts'
import { createAuthorizationReader } from '../../src/store/authorization.ts'
import type { AuthorizationReader } from '../../src/store/authorization.ts'
import { openDatabase } from '../../src/store/postgres.ts'
import type { Database } from '../../src/store/postgres.ts'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'
import { callerWith } from './bench.ts'

const A = 'https://a.example'
const B = 'https://b.example'

let database: TestDatabase
let db: Database
let read: AuthorizationReader
let sessionReads = 0
beforeAll(async () => {
  database = await createDatabase()
  db = openDatabase({ url: database.url, name: 'authorize', max: 4 })
  const reader = createAuthorizationReader(db)
  read = {
    ...reader,
    session: (id) => {
      sessionReads += 1
      return reader.session(id)
    },
  }
})
afterAll(async () => {
  await db.$disconnect()
  await database.drop()
})

interface Seed {
  id?: string
  issuer?: string
  userId?: string
  resourceOwner?: string
  tokenHash?: Uint8Array | null
  terminated?: boolean
}

const seed = async ({ id = randomUUID(), issuer = A, userId = 'alice', resourceOwner = 'o1', tokenHash = null, terminated = false }: Seed = {}): Promise<string> => {
  await database.sql.query(
    `INSERT INTO sessions (id, issuer, user_id, resource_owner, state, sequence, token_hash, registration_hash, creator_issuer, creator_subject, born, created_at, change_date, expires_at, terminated_at)
     VALUES ($1, $2, $3, $4, $5, 2, $6, '\\x00', $2, 'registrar', now(), now(), '2024-05-10T13:32:02.709Z', now() + interval '1 day', $7)`,
    [id, issuer, userId, resourceOwner, terminated ? 'terminated' : 'active', tokenHash, terminated ? '2024-05-10T13:32:02.709Z' : null],
  )
  return id
}

const reaching = (reach: Reach | null, overrides: Partial<Caller> = {}): Caller =>
  callerWith({
    actor: { issuer: A, subject: 'bob' },
    sessionIssuers: [A],
    grants: new Map(reach === null ? [] : [['session.delete', reach]]),
    ...overrides,
  })

const decide = async (caller: Caller, id: string, token: string | null = null): Promise<EndDecision | { refused: string }> => {
  try {
    return await createAuthorizeEnd({ read })(caller, id, token)
  } catch (error) {
    if (error instanceof CurfewError) return { refused: error.kind }
    throw error
  }
}

const firstDetails = { details: { sequence: '2', changeDate: '2024-05-10T13:32:02.709Z', resourceOwner: 'o1' } }
const commandOf = (sessionId: string, caller: Caller, issuers: string[] = [A]) => ({
  command: { sessionId, issuers, actor: caller.actor, mode: 'logout', reason: null },
})

const nobody = () => reaching(null)
const instanceWide = () => reaching('instance')
const within = (...organizations: string[]) => reaching(new Set(organizations))

describe('a session token decides alone', () => {
  it('right, whoever asks: even without permission, of another user, issuer or organization', async () => {
    const { token, hash } = newSessionToken()
    const id = await seed({ tokenHash: hash })
    for (const caller of [nobody(), instanceWide(), within('o2'), reaching(null, { sessionIssuers: [B] })]) {
      expect(await decide(caller, id, token)).toEqual(commandOf(id, caller))
    }
  })

  it('wrong, whoever asks: even the user or an administrator', async () => {
    const { token } = newSessionToken()
    const id = await seed({ tokenHash: newSessionToken().hash })
    for (const caller of [nobody(), instanceWide(), within('o1'), reaching(null, { actor: { issuer: A, subject: 'alice' } })]) {
      for (const wrong of [token, 'x', 'null', '\0', ' ', 'x'.repeat(100_000)]) {
        expect(await decide(caller, id, wrong)).toEqual({ refused: 'session_token_invalid' })
      }
    }
  })

  it('of another session, for a session without one, or for no session at all: refused alike', async () => {
    const { token, hash } = newSessionToken()
    await seed({ tokenHash: hash })
    const another = await seed({ tokenHash: newSessionToken().hash })
    const without = await seed({ tokenHash: null })
    const odd = await seed({ tokenHash: hash.slice(0, 31) })
    for (const id of [another, without, odd, randomUUID(), 'a\0b']) {
      expect(await decide(instanceWide(), id, token)).toEqual({ refused: 'session_token_invalid' })
    }
  })

  it('stale: the old token fails at once after a new one is set', async () => {
    const first = newSessionToken()
    const second = newSessionToken()
    const id = await seed({ tokenHash: first.hash })
    await database.sql.query('UPDATE sessions SET token_hash = $2 WHERE id = $1', [id, second.hash])
    expect(await decide(nobody(), id, first.token)).toEqual({ refused: 'session_token_invalid' })
    expect(await decide(nobody(), id, second.token)).toHaveProperty('command')
  })

  it('G3: the last token of a terminated session still authorizes the repeat', async () => {
    const { token, hash } = newSessionToken()
    const id = await seed({ tokenHash: hash, terminated: true })
    expect(await decide(nobody(), id, token)).toEqual(firstDetails)
    expect(await decide(instanceWide(), id, `${token}x`)).toEqual({ refused: 'session_token_invalid' })
  })

  it('empty is none', async () => {
    const id = await seed()
    expect(await decide(instanceWide(), id, '')).toEqual(commandOf(id, instanceWide()))
    expect(await decide(nobody(), id, '')).toEqual({ refused: 'permission_denied' })
  })
})

describe('the session\'s own user', () => {
  const alice = (overrides: Partial<Caller> = {}) => reaching(null, { actor: { issuer: A, subject: 'alice' }, ...overrides })

  it('may, without any permission', async () => {
    const id = await seed()
    expect(await decide(alice(), id)).toEqual(commandOf(id, alice()))
  })

  it('gets the first termination\'s details for a terminated one (G3)', async () => {
    expect(await decide(alice(), await seed({ terminated: true }))).toEqual(firstDetails)
  })

  it('is the same subject at the same issuer: another issuer\'s alice is somebody else (G6)', async () => {
    const id = await seed({ issuer: B })
    expect(await decide(alice({ sessionIssuers: [A, B] }), id)).toEqual({ refused: 'permission_denied' })
    expect(await decide(alice({ sessionIssuers: [B] }), id)).toEqual({ refused: 'permission_denied' })
    expect(await decide(alice({ actor: { issuer: A, subject: 'Alice' } }), await seed())).toEqual({ refused: 'permission_denied' })
  })

  it('may not, where the issuer does not speak for its own sessions', async () => {
    expect(await decide(alice({ sessionIssuers: [B] }), await seed())).toEqual({ refused: 'permission_denied' })
  })

  it('may, in an organization where its session.delete does not reach', async () => {
    const caller = alice({ grants: new Map([['session.delete', new Set(['o2'])]]) })
    const id = await seed()
    expect(await decide(caller, id)).toEqual(commandOf(id, caller))
  })
})

describe('session.delete', () => {
  it('for the instance is decided by the claims alone, at once and without a read', () => {
    const before = sessionReads
    const caller = reaching('instance', { sessionIssuers: [A, B] })
    expect(createAuthorizeEnd({ read })(caller, 'any', null)).toEqual(commandOf('any', caller, [A, B]))
    expect(sessionReads).toBe(before)
  })

  it('for organizations reaches their sessions', async () => {
    const id = await seed({ resourceOwner: 'o2' })
    expect(await decide(within('o1', 'o2'), id)).toEqual(commandOf(id, within('o1', 'o2')))
    expect(await decide(within('o1'), await seed({ terminated: true }))).toEqual(firstDetails)
  })

  it('for organizations finds nothing beyond them: other organizations, other issuers, no session, all alike (G6)', async () => {
    const outside = [
      await seed({ resourceOwner: 'o2' }),
      await seed({ resourceOwner: 'o2', terminated: true }),
      await seed({ issuer: B }),
      await seed({ issuer: B, terminated: true }),
      randomUUID(),
      'a\0b',
    ]
    for (const id of outside) expect(await decide(within('o1'), id), id).toEqual({ refused: 'session_not_found' })
  })

  it('held nowhere: refused alike whether or not the session exists (G6)', async () => {
    for (const id of [await seed(), await seed({ terminated: true }), await seed({ issuer: B }), randomUUID()]) {
      expect(await decide(nobody(), id)).toEqual({ refused: 'permission_denied' })
    }
  })

  it('is no other permission', async () => {
    const caller = reaching(null, { grants: new Map([['session.write', 'instance'], ['session.read', 'instance'], ['revocation.write', 'instance']]) })
    expect(await decide(caller, await seed())).toEqual({ refused: 'permission_denied' })
  })
})

it('every refusal takes exactly one read, whether or not the session exists', async () => {
  const id = await seed({ tokenHash: newSessionToken().hash })
  for (const [caller, token] of [[nobody(), null], [within('o9'), null], [nobody(), 'wrong'], [instanceWide(), 'wrong']] as const) {
    for (const asked of [id, randomUUID()]) {
      const before = sessionReads
      expect(await decide(caller, asked, token)).toHaveProperty('refused')
      expect(sessionReads - before).toBe(1)
    }
  }
})

it('is unavailable while Postgres is away, and nothing is decided', async () => {
  const away = openDatabase({ url: 'postgresql://postgres:postgres@127.0.0.1:1/none', name: 'away', max: 1 })
  const end = createAuthorizeEnd({ read: createAuthorizationReader(away) })
  await expect(end(nobody(), 'any', null)).rejects.toMatchObject({ kind: 'unavailable' })
  await expect(end(instanceWide(), 'any', 'token')).rejects.toMatchObject({ kind: 'unavailable' })
  await away.$disconnect()
})
