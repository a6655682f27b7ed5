/** What a caller must present: a good token in a good header is accepted. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startIssuer } from '../harness/issuer.ts'
import type { TestIssuer } from '../harness/issuer.ts'
import { createAsker } from './bench.ts'

let issuer: TestIssuer
beforeAll(async () => {
  issuer = await startIssuer()
})
afterAll(() => issuer.close())

const ask = (token: string) => createAsker([issuer.entry()]).ask(token)

describe('a good token', () => {
  it('is accepted with each of the issuer\'s algorithms (RFC 9068 §4)', async () => {
    const { ask: askOne } = createAsker([issuer.entry()])
    for (const alg of ['RS256', 'ES256']) {
      expect(await askOne(await issuer.token({ sid: 's-1' }, { alg }))).toMatchObject({
        caller: { actor: { issuer: issuer.url, subject: 'user-1' }, sid: 's-1', sessionIssuers: [issuer.url] },
      })
    }
  })

  it('may be typed at+jwt or application/at+jwt, in any case (RFC 9068 §2.1)', async () => {
    for (const typ of ['at+jwt', 'application/at+jwt', 'AT+JWT', 'Application/At+Jwt']) {
      expect(await ask(await issuer.token({}, { typ }))).toHaveProperty('caller')
    }
  })

  it('may list several audiences if ours is one of them (RFC 8725 §3.9)', async () => {
    expect(await ask(await issuer.token({ aud: ['other', 'curfew'] }))).toHaveProperty('caller')
  })

  it('was born at auth_time, else at iat', async () => {
    const now = Math.floor(Date.now() / 1_000)
    expect(await ask(await issuer.token({ auth_time: now - 500 }))).toMatchObject({ caller: { bornMs: (now - 500) * 1_000 } })
    expect(await ask(await issuer.token({ iat: now - 7 }))).toMatchObject({ caller: { bornMs: (now - 7) * 1_000 } })
  })
})

describe('the Authorization header', () => {
  it('is missing', async () => {
    const { askHeader } = createAsker([issuer.entry()])
    expect(await askHeader(undefined)).toMatchObject({ refused: 'auth_header_missing' })
    expect(await askHeader('')).toMatchObject({ refused: 'auth_header_missing' })
  })

  it('is malformed', async () => {
    const { askHeader } = createAsker([issuer.entry()])
    for (const header of ['Bearer', 'Bearer ', 'Basic dTpw', 'Bearer a b', 'Bearer é', 'Bearer a,b', 'Bearer\tabc', ' Bearer abc', 'Bearer a\nb', 'abc']) {
      expect(await askHeader(header), header).toMatchObject({ refused: 'auth_header_malformed' })
    }
  })

  it('names its scheme in any case (RFC 9110 §11.1)', async () => {
    const { askHeader } = createAsker([issuer.entry()])
    expect(await askHeader(`bEARER ${await issuer.token()}`)).toHaveProperty('caller')
  })
})
