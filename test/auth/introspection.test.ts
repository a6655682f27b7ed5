/** Opaque tokens by introspection (RFC 7662). */
import { randomBytes } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { startIssuer } from '../harness/issuer.ts'
import type { EndpointMode, TestIssuer } from '../harness/issuer.ts'
import { createAsker, createClock } from './bench.ts'

let issuer: TestIssuer
beforeEach(async () => {
  issuer = await startIssuer({ algorithms: ['ES256'] })
})
afterEach(() => issuer.close())

const nowSeconds = () => Math.floor(Date.now() / 1_000)

describe('an opaque token', () => {
  it('is what its issuer says of it', async () => {
    const { ask } = createAsker([issuer.introspectionEntry()])
    const token = issuer.opaque({ sub: 'u-7', sid: 's-7', auth_time: 1_700_000_000, permissions: ['session.read'] })
    expect(await ask(token)).toMatchObject({
      caller: { actor: { issuer: issuer.url, subject: 'u-7' }, sid: 's-7', bornMs: 1_700_000_000_000, grants: new Map([['session.read', 'instance']]) },
    })
  })

  it('is asked about as RFC 7662 §2.1 says, with form-encoded basic credentials (RFC 6749 §2.3.1)', async () => {
    const introspection = { endpoint: issuer.introspectionEndpoint, clientId: 'cur:few', clientSecret: 'a b+c/ü' }
    const { ask } = createAsker([issuer.introspectionEntry({ introspection })])
    const token = issuer.opaque()
    await ask(token)
    const { authorization = '', body = '' } = issuer.lastIntrospection ?? {}
    expect(Buffer.from(authorization.slice('Basic '.length), 'base64').toString()).toBe('cur%3Afew:a+b%2Bc%2F%C3%BC')
    expect(Object.fromEntries(new URLSearchParams(body))).toEqual({ token, token_type_hint: 'access_token' })
  })

  it('is invalid where nobody can be asked, and nobody is', async () => {
    const { ask } = createAsker([issuer.entry()])
    expect(await ask(issuer.opaque())).toMatchObject({ refused: 'token_invalid' })
    expect(issuer.introspections).toBe(0)
  })

  it('is refused if it is inactive, expired, of another issuer or audience, not an access token, or nobody\'s', async () => {
    const { ask } = createAsker([issuer.introspectionEntry()])
    const refusals: Record<string, unknown>[] = [
      { active: false },
      { active: 'true' },
      { active: undefined },
      { exp: nowSeconds() - 31 },
      { exp: 'soon' },
      { nbf: nowSeconds() + 60 },
      { iat: nowSeconds() + 60 },
      { iss: 'https://other.example' },
      { iss: null },
      { aud: 'other' },
      { aud: [] },
      { token_type: 'refresh_token' },
      { token_type: 'DPoP' },
      { token_type: 7 },
      { events: {} },
      { nonce: 'n' },
      { cnf: { jkt: 'x' } },
      { sub: undefined },
      { sub: 7 },
      { sid: 7 },
    ]
    for (const claims of refusals) {
      expect(await ask(issuer.opaque(claims)), JSON.stringify(claims)).toMatchObject({ refused: 'token_invalid' })
    }
  })

  it('may be described without issuer, audience and dates, which RFC 7662 §2.2 leaves open', async () => {
    const { ask } = createAsker([issuer.introspectionEntry()])
    const token = issuer.opaque({ iss: undefined, aud: undefined, exp: undefined, iat: undefined, token_type: undefined })
    expect(await ask(token)).toMatchObject({ caller: { actor: { issuer: issuer.url }, bornMs: 0 } })
  })
})

describe('remembering', () => {
  it('asks once in 10 s, and answers from memory without a promise', async () => {
    const clock = createClock()
    const { ask, authenticate } = createAsker([issuer.introspectionEntry()], { clock })
    const token = issuer.opaque()
    await Promise.all([ask(token), ask(token), ask(token)])
    expect(issuer.introspections).toBe(1)
    issuer.revoke(token)
    clock.pass(9_000)
    expect(authenticate(`Bearer ${token}`)).not.toBeInstanceOf(Promise)
    clock.pass(1_500)
    expect(await ask(token)).toMatchObject({ refused: 'token_invalid' })
    expect(issuer.introspections).toBe(2)
  })

  it('never goes past exp (RFC 7662 §4)', async () => {
    const clock = createClock()
    const { ask } = createAsker([issuer.introspectionEntry()], { clock })
    const token = issuer.opaque({ exp: nowSeconds() + 3 })
    await ask(token)
    clock.pass(4_000)
    await ask(token)
    expect(issuer.introspections).toBe(2)
  })

  it('keeps a no for a second at most', async () => {
    const clock = createClock()
    const { ask } = createAsker([issuer.introspectionEntry()], { clock })
    const token = randomBytes(24).toString('base64url')
    await ask(token)
    await ask(token)
    expect(issuer.introspections).toBe(1)
    clock.pass(1_001)
    await ask(token)
    expect(issuer.introspections).toBe(2)
  })
})

describe('an issuer that does not answer', () => {
  it.each<EndpointMode>(['fail', 'redirect', 'html', 'huge', 'hang'])('leaves the token undecided: %s', async (mode) => {
    const { ask } = createAsker([issuer.introspectionEntry()])
    issuer.setIntrospectionMode(mode)
    const token = issuer.opaque()
    expect(await ask(token)).toMatchObject({ refused: 'issuer_unavailable' })
    issuer.setIntrospectionMode('ok')
    expect(await ask(token)).toHaveProperty('caller')
  })

  it('is asked by so many at once and waited for by so many, and no more', async () => {
    const { ask } = createAsker([issuer.introspectionEntry()])
    issuer.setIntrospectionMode('hang')
    const asked = Array.from({ length: 1_100 }, (_, index) => ask(`made-up-${index}`))
    // 32 ask and 1,000 wait; whoever comes after them is told so at once.
    const late = await Promise.all(asked.slice(1_032))
    expect(new Set(late.map((answer) => 'refused' in answer && answer.refused))).toEqual(new Set(['overloaded']))
    expect(issuer.introspections).toBeLessThanOrEqual(32)
  })
})

describe('several issuers', () => {
  it('are asked in the order of ISSUERS until one knows the token', async () => {
    const second = await startIssuer({ algorithms: ['ES256'] })
    const { ask } = createAsker([issuer.introspectionEntry(), second.introspectionEntry()])
    expect(await ask(second.opaque())).toHaveProperty('caller.actor.issuer', second.url)
    expect([issuer.introspections, second.introspections]).toEqual([1, 1])
    expect(await ask(issuer.opaque())).toHaveProperty('caller.actor.issuer', issuer.url)
    expect([issuer.introspections, second.introspections]).toEqual([2, 1])
    issuer.setIntrospectionMode('fail')
    expect(await ask(second.opaque())).toHaveProperty('caller')
    expect(await ask(randomBytes(24).toString('base64url'))).toMatchObject({ refused: 'issuer_unavailable' })
    await second.close()
  })

  it('cannot vouch in the name of another', async () => {
    const second = await startIssuer({ algorithms: ['ES256'] })
    const { ask } = createAsker([issuer.introspectionEntry(), second.introspectionEntry()])
    expect(await ask(issuer.opaque({ iss: second.url }))).toMatchObject({ refused: 'token_invalid' })
    await second.close()
  })

  it('are asked about a JWT of theirs only where they have introspection and no keys', async () => {
    const second = await startIssuer({ algorithms: ['ES256'] })
    const { ask } = createAsker([issuer.introspectionEntry(), second.introspectionEntry({ jwksUri: second.jwksUri })])
    expect(await ask(await issuer.token())).toMatchObject({ refused: 'token_invalid' })
    expect([issuer.introspections, issuer.jwksFetches]).toEqual([1, 0])
    expect(await ask(await second.token())).toHaveProperty('caller')
    expect(await ask(await second.token({}, { kid: 'x' }))).toMatchObject({ refused: 'token_invalid' })
    expect([issuer.introspections, second.introspections]).toEqual([1, 0])
    await second.close()
  })
})
