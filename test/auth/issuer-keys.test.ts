/** The issuer's keys: fetched rarely, kept through outages, and never replaced by something worse. */
import { randomUUID } from 'node:crypto'
import { SignJWT } from 'jose'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { startIssuer } from '../harness/issuer.ts'
import type { EndpointMode, TestIssuer } from '../harness/issuer.ts'
import { createAsker, createClock } from './bench.ts'

const MINUTE = 60_000

let issuer: TestIssuer
beforeEach(async () => {
  issuer = await startIssuer()
})
afterEach(() => issuer.close())

const minted = (clock: ReturnType<typeof createClock>, header: Record<string, unknown> = {}) => {
  const now = Math.floor(clock.now() / 1_000)
  // A new jti each time, so that nothing is answered from memory.
  return issuer.token({ jti: randomUUID(), iat: now, exp: now + 300 }, header)
}

describe('fetching', () => {
  it('finds the keys by discovery where the entry names no jwksUri', async () => {
    const { jwksUri: _, ...entry } = issuer.entry()
    const { ask } = createAsker([entry])
    expect(await ask(await issuer.token())).toHaveProperty('caller')
    expect(issuer.discoveryFetches).toBe(1)
  })

  it('refuses a discovery document of another issuer (OpenID Connect Discovery §4.3)', async () => {
    const { jwksUri: _, ...entry } = issuer.entry({ issuer: `${issuer.url}/` })
    const { ask } = createAsker([entry])
    expect(await ask(await issuer.token({ iss: `${issuer.url}/` }))).toMatchObject({ refused: 'issuer_unavailable' })
    expect(issuer.jwksFetches).toBe(0)
  })

  it('follows no redirect from discovery either', async () => {
    issuer.setDiscoveryMode('redirect')
    const { jwksUri: _, ...entry } = issuer.entry()
    const { ask } = createAsker([entry])
    expect(await ask(await issuer.token())).toMatchObject({ refused: 'issuer_unavailable' })
  })

  it('asks once for many tokens at the same time', async () => {
    const { ask } = createAsker([issuer.entry()])
    const tokens = await Promise.all(Array.from({ length: 50 }, () => minted(createClock())))
    for (const answer of await Promise.all(tokens.map(ask))) expect(answer).toHaveProperty('caller')
    expect(issuer.jwksFetches).toBe(1)
  })

  it('learns a rotated key at its first use', async () => {
    const { ask } = createAsker([issuer.entry()])
    expect(await ask(await issuer.token())).toHaveProperty('caller')
    await issuer.rotate('RS256')
    expect(await ask(await issuer.token())).toHaveProperty('caller')
    expect(issuer.jwksFetches).toBe(2)
  })

  it('forgets a withdrawn key after the refresh', async () => {
    const clock = createClock()
    const { ask } = createAsker([issuer.entry()], { clock })
    const { privateKey, kid } = issuer.key('RS256')
    expect(await ask(await minted(clock))).toHaveProperty('caller')
    await issuer.rotate('RS256', { keepOld: false })
    clock.pass(61 * MINUTE)
    // Idle for an hour: this very request waits for the refresh.
    const now = Math.floor(clock.now() / 1_000)
    const old = await new SignJWT({ iss: issuer.url, aud: 'curfew', sub: 'u', iat: now, exp: now + 300 })
      .setProtectedHeader({ alg: 'RS256', typ: 'at+jwt', kid })
      .sign(privateKey)
    expect(await ask(old)).toMatchObject({ refused: 'token_invalid' })
    expect(await ask(await minted(clock))).toHaveProperty('caller')
  })

  it('takes a key for encryption or of an unknown kind for none of its own (RFC 7517 §5)', async () => {
    issuer.addPublicKey({ ...issuer.key('RS256').jwk, kid: 'enc', use: 'enc' })
    issuer.addPublicKey({ kty: 'AKP', kid: 'new', alg: 'ML-DSA-44' })
    const { ask } = createAsker([issuer.entry()])
    expect(await ask(await issuer.token())).toHaveProperty('caller')
    expect(await ask(await issuer.token({}, { kid: 'enc' }))).toMatchObject({ refused: 'token_invalid' })
  })
})

describe('F34: the JWKS endpoint is away', () => {
  it('known keys go on working for hours, unknown ones are refused', async () => {
    const clock = createClock()
    const { ask } = createAsker([issuer.entry()], { clock })
    expect(await ask(await minted(clock))).toHaveProperty('caller')
    issuer.setJwksMode('fail')
    for (let minute = 0; minute < 240; minute += 15) {
      clock.pass(15 * MINUTE)
      expect(await ask(await minted(clock)), `after ${minute + 15} minutes`).toHaveProperty('caller')
      expect(await ask(await minted(clock, { kid: 'unknown' }))).toMatchObject({ refused: 'token_invalid' })
    }
    issuer.setJwksMode('ok')
    await issuer.rotate('RS256')
    clock.pass(MINUTE)
    expect(await ask(await minted(clock))).toHaveProperty('caller')
  })

  it('a token is neither good nor bad where no key was ever had, and the next try is soon', async () => {
    const clock = createClock()
    const { ask } = createAsker([issuer.entry()], { clock })
    issuer.setJwksMode('fail')
    expect(await ask(await minted(clock))).toMatchObject({ refused: 'issuer_unavailable' })
    for (let tries = 0; tries < 20; tries += 1) await ask(await minted(clock))
    expect(issuer.jwksFetches).toBeLessThanOrEqual(2)
    issuer.setJwksMode('ok')
    clock.pass(5_000)
    expect(await ask(await minted(clock))).toHaveProperty('caller')
  })

  it('keys older than a day are believed no longer', async () => {
    const clock = createClock()
    const { ask } = createAsker([issuer.entry()], { clock })
    expect(await ask(await minted(clock))).toHaveProperty('caller')
    issuer.setJwksMode('fail')
    clock.pass(25 * 60 * MINUTE)
    expect(await ask(await minted(clock))).toMatchObject({ refused: 'issuer_unavailable' })
  })
})

describe('F35: a storm of unknown kids', () => {
  it.each<EndpointMode>(['ok', 'fail', 'hang'])('causes one fetch in 30 s while the endpoint answers %s, and good tokens do not wait', async (mode) => {
    const clock = createClock()
    const { ask, authenticate } = createAsker([issuer.entry()], { clock })
    const good = await minted(clock)
    expect(await ask(good)).toHaveProperty('caller')
    const before = issuer.jwksFetches
    issuer.setJwksMode(mode)
    const bad = await Promise.all(Array.from({ length: 100 }, (_, index) => minted(clock, { kid: `made-up-${index}` })))
    const storm = Promise.all(bad.map(ask))
    const another = await minted(clock)
    // With a hanging endpoint the storm waits; who is known comes first.
    if (mode === 'hang') expect(await Promise.race([storm, authenticate(`Bearer ${another}`)])).toMatchObject({ sid: null })
    else expect(await ask(another)).toHaveProperty('caller')
    for (const answer of await storm) expect(answer).toMatchObject({ refused: 'token_invalid' })
    for (let index = 0; index < 50; index += 1) await ask(await minted(clock, { kid: `later-${index}` }))
    expect(issuer.jwksFetches - before).toBe(1)
    clock.pass(31_000)
    await Promise.all(bad.map(ask))
    expect(issuer.jwksFetches - before).toBe(2)
  })
})

describe('F36 and S11: a JWKS that is not one', () => {
  it.each<EndpointMode>(['fail', 'redirect', 'html', 'huge', 'duplicate', 'oct', 'empty', 'many', 'hang'])(
    'refuses the set and keeps the old one: %s',
    async (mode) => {
      const clock = createClock()
      const { ask } = createAsker([issuer.entry()], { clock })
      expect(await ask(await minted(clock))).toHaveProperty('caller')
      issuer.setJwksMode(mode)
      await issuer.rotate('ES256')
      expect(await ask(await minted(clock, { alg: 'ES256' }))).toMatchObject({ refused: 'token_invalid' })
      expect(issuer.jwksFetches).toBe(2)
      expect(await ask(await minted(clock))).toHaveProperty('caller')
    },
  )

  it.each<EndpointMode>(['redirect', 'html', 'huge', 'duplicate', 'oct', 'empty', 'many'])(
    'never starts with such a set: %s',
    async (mode) => {
      issuer.setJwksMode(mode)
      const { ask } = createAsker([issuer.entry()])
      expect(await ask(await issuer.token())).toMatchObject({ refused: 'issuer_unavailable' })
    },
  )

  it('refuses a set that holds a private key', async () => {
    issuer.addPublicKey({ ...issuer.key('ES256').jwk, kid: 'leaked', d: 'AAAA' })
    const { ask } = createAsker([issuer.entry()])
    expect(await ask(await issuer.token())).toMatchObject({ refused: 'issuer_unavailable' })
  })
})
