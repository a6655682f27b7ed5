/** The attack table: every token here is refused with the same 401, and none reaches authorization. */
import { createHmac, createPublicKey, createSign, generateKeyPairSync } from 'node:crypto'
import { CompactEncrypt, CompactSign, SignJWT, UnsecuredJWT, importJWK } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startIssuer } from '../harness/issuer.ts'
import type { TestIssuer } from '../harness/issuer.ts'
import { createAsker } from './bench.ts'

let issuer: TestIssuer
let other: TestIssuer
beforeAll(async () => {
  issuer = await startIssuer()
  other = await startIssuer()
})
afterAll(async () => {
  await issuer.close()
  await other.close()
})

const encode = (value: unknown): string => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')
const claims = (more: Record<string, unknown> = {}) => {
  const now = Math.floor(Date.now() / 1_000)
  return { iss: issuer.url, aud: 'curfew', sub: 'user-1', iat: now, exp: now + 300, ...more }
}
const invalid = (because: RegExp) => ({ refused: 'token_invalid', because: expect.stringMatching(because) as string })
const ask = (token: string) => createAsker([issuer.entry()]).ask(token)

describe('attacks on the signature', () => {
  it('S1: refuses alg none, in every spelling (RFC 8725 §3.2)', async () => {
    const unsecured = new UnsecuredJWT(claims()).encode()
    expect(await ask(unsecured)).toMatchObject({ refused: 'token_invalid' })
    for (const alg of ['none', 'None', 'NONE', 'nOnE', '']) {
      const head = encode({ alg, typ: 'at+jwt' })
      expect(await ask(`${head}.${encode(claims())}.`)).toEqual(invalid(/alg is not accepted/))
      expect(await ask(`${head}.${encode(claims())}.AAAA`)).toEqual(invalid(/alg is not accepted/))
    }
  })

  it('S2: refuses an HMAC made with the public key, in each of its forms (RFC 8725 §3.1)', async () => {
    const { kid, jwk } = issuer.key('RS256')
    const publicKey = createPublicKey({ key: jwk as Record<string, unknown>, format: 'jwk' })
    const secrets = [
      publicKey.export({ type: 'spki', format: 'pem' }),
      publicKey.export({ type: 'spki', format: 'der' }),
      publicKey.export({ type: 'pkcs1', format: 'pem' }),
      JSON.stringify(jwk),
      String(jwk.n),
    ]
    for (const secret of secrets) {
      for (const header of [{ kid }, {}]) {
        const input = `${encode({ alg: 'HS256', typ: 'at+jwt', ...header })}.${encode(claims())}`
        const signature = createHmac('sha256', secret).update(input).digest('base64url')
        expect(await ask(`${input}.${signature}`)).toEqual(invalid(/alg is not accepted/))
      }
    }
  })

  it('S2: refuses an algorithm that the entry does not list, though the key could do it', async () => {
    const { ask: askOne } = createAsker([issuer.entry({ algorithms: ['ES256'] })])
    expect(await askOne(await issuer.token())).toEqual(invalid(/alg is not accepted/))
    expect(await askOne(await issuer.token({}, { alg: 'ES256' }))).toHaveProperty('caller')
  })

  it('S3: refuses a kid that is too long or not plain, before any look-up (RFC 8725 §3.10)', async () => {
    const before = issuer.jwksFetches
    for (const kid of ['x'.repeat(300), 'a\u0000b', 'a\nb', 'é', '', 7, null, { a: 1 }, ['x']]) {
      expect(await ask(await issuer.token({}, { kid: kid as string }).catch(() => `${encode({ alg: 'RS256', typ: 'at+jwt', kid })}.${encode(claims())}.AAAA`))).toEqual(
        invalid(/kid/),
      )
    }
    expect(issuer.jwksFetches).toBe(before)
  })

  it('S3: takes a kid of paths and SQL for a name and nothing else', async () => {
    const { ask: askOne } = createAsker([issuer.entry()])
    for (const kid of ['../../../../etc/passwd', "' OR 1=1 --", '__proto__', 'constructor', '/dev/null']) {
      expect(await askOne(await issuer.token({}, { kid }))).toEqual(invalid(/signature/))
    }
  })

  it('S4: ignores keys that the token carries or points to (RFC 8725 §3.10)', async () => {
    const { jwk, privateKey } = other.key('RS256')
    for (const header of [{ jwk }, { jku: other.jwksUri }, { x5u: `${other.url}/cert` }, { x5c: ['MIIB'] }]) {
      const before = other.jwksFetches
      const token = await new SignJWT(claims())
        .setProtectedHeader({ alg: 'RS256', typ: 'at+jwt', kid: issuer.key('RS256').kid, ...header })
        .sign(privateKey)
      expect(await ask(token)).toEqual(invalid(/ERR_JWS_SIGNATURE_VERIFICATION_FAILED/))
      expect(other.jwksFetches).toBe(before)
    }
  })

  it('S5: refuses every critical extension, b64 too (RFC 7515 §4.1.11, RFC 7797)', async () => {
    const { kid, privateKey } = issuer.key('RS256')
    const body = new TextEncoder().encode(JSON.stringify(claims()))
    const withB64 = await new CompactSign(body)
      .setProtectedHeader({ alg: 'RS256', typ: 'at+jwt', kid, crit: ['b64'], b64: true })
      .sign(privateKey)
    expect(await ask(withB64)).toEqual(invalid(/critical/))
    for (const header of [{ crit: ['exp'], exp: 1 }, { crit: [] }, { crit: 'x' }, { crit: null }, { b64: false }]) {
      expect(await ask(`${encode({ alg: 'RS256', typ: 'at+jwt', kid, ...header })}.${encode(claims())}.AAAA`)).toEqual(invalid(/critical/))
    }
  })

  it('S12: refuses a second spelling of a good signature (RFC 7515 §2)', async () => {
    const token = await issuer.token({}, { alg: 'ES256' })
    expect(await ask(token)).toHaveProperty('caller')
    const last = token.at(-1) ?? ''
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
    // 64 bytes leave four bits of the last character unused.
    const same = [...alphabet].filter((c) => c !== last && alphabet.indexOf(c) >> 4 === alphabet.indexOf(last) >> 4)
    expect(same.length).toBe(15)
    for (const c of same) expect(await ask(token.slice(0, -1) + c)).toEqual(invalid(/base64url/))
    for (const tail of ['=', '==']) expect(await ask(token + tail)).toMatchObject({ refused: 'token_invalid' })
  })

  it('S12: refuses an ES256 signature of zeros, and one in DER', async () => {
    const { kid } = issuer.key('ES256')
    const input = `${encode({ alg: 'ES256', typ: 'at+jwt', kid })}.${encode(claims())}`
    for (const signature of [Buffer.alloc(64), Buffer.alloc(72), Buffer.from('3006020101020101', 'hex'), Buffer.alloc(64, 0xff)]) {
      expect(await ask(`${input}.${signature.toString('base64url')}`)).toEqual(invalid(/signature/))
    }
  })

  it('refuses every token with one character changed', async () => {
    const token = await issuer.token({}, { alg: 'ES256' })
    const { ask: askOne } = createAsker([issuer.entry()])
    expect(await askOne(token)).toHaveProperty('caller')
    for (let at = 0; at < token.length; at += 7) {
      if (token[at] === '.') continue
      const changed = token.slice(0, at) + (token[at] === 'A' ? 'B' : 'A') + token.slice(at + 1)
      expect(await askOne(changed), `character ${at}`).toMatchObject({ refused: 'token_invalid' })
    }
  })

  it('refuses a weak RSA key, though the issuer publishes it (RFC 8725 §3.5)', async () => {
    const weak = generateKeyPairSync('rsa', { modulusLength: 1_024 })
    const lax = await startIssuer()
    lax.addPublicKey({ ...weak.publicKey.export({ format: 'jwk' }), kid: 'weak', alg: 'RS256', use: 'sig' })
    const input = `${encode({ alg: 'RS256', typ: 'at+jwt', kid: 'weak' })}.${encode(claims({ iss: lax.url }))}`
    const signature = createSign('sha256').update(input).sign(weak.privateKey, 'base64url')
    const { ask: askOne } = createAsker([lax.entry()])
    expect(await askOne(`${input}.${signature}`)).toEqual(invalid(/unusable key/))
    await lax.close()
  })
})

describe('attacks on the claims', () => {
  it('S6: requires exp, and refuses what is expired, not yet valid or born in the future (RFC 9068 §4)', async () => {
    const now = Math.floor(Date.now() / 1_000)
    expect(await ask(await issuer.token({ exp: undefined }))).toEqual(invalid(/no exp/))
    expect(await ask(await issuer.token({ exp: now - 31 }))).toEqual(invalid(/expired/))
    expect(await ask(await issuer.token({ nbf: now + 60 }))).toEqual(invalid(/not yet valid/))
    expect(await ask(await issuer.token({ iat: now + 60 }))).toEqual(invalid(/future/))
    expect(await ask(await issuer.token({ auth_time: now + 60 }))).toEqual(invalid(/future/))
    for (const exp of ['9999999999', null, true, {}, [9_999_999_999]]) {
      expect(await ask(await issuer.token({ exp }))).toEqual(invalid(/exp is not a date/))
    }
  })

  it('S6: forgives clocks 30 s, no more', async () => {
    const now = Math.floor(Date.now() / 1_000)
    expect(await ask(await issuer.token({ exp: now - 25 }))).toHaveProperty('caller')
    expect(await ask(await issuer.token({ nbf: now + 25, iat: now + 25 }))).toHaveProperty('caller')
  })

  it('S6: does not take a date past all numbers for a date', async () => {
    const { kid, privateKey } = issuer.key('RS256')
    const body = JSON.stringify(claims()).replace(/"exp":\d+/, '"exp":1e999')
    const token = await new CompactSign(new TextEncoder().encode(body)).setProtectedHeader({ alg: 'RS256', typ: 'at+jwt', kid }).sign(privateKey)
    expect(await ask(token)).toEqual(invalid(/exp is not a date/))
  })

  it('S7: requires our audience, exactly (RFC 8725 §3.9)', async () => {
    for (const aud of [undefined, 'other', 'curfew2', 'CURFEW', ['other'], [], null, { curfew: 1 }, [['curfew']]]) {
      expect(await ask(await issuer.token({ aud }))).toEqual(invalid(/audience/))
    }
  })

  it('S7: requires an issuer from the list, exactly (RFC 8725 §3.8)', async () => {
    for (const iss of [undefined, other.url, `${issuer.url}/`, issuer.url.toUpperCase(), '', null, [issuer.url]]) {
      expect(await ask(await issuer.token({ iss }))).toEqual(invalid(/issuer/))
    }
  })

  it('S7: one issuer cannot speak in the name of another (RFC 8725 §3.8)', async () => {
    const { ask: askOne } = createAsker([issuer.entry(), other.entry()])
    expect(await askOne(await other.token({ iss: issuer.url }))).toEqual(invalid(/signature/))
    expect(await askOne(await other.token({ iss: issuer.url }, { kid: issuer.key('RS256').kid }))).toEqual(invalid(/signature/))
    expect(await askOne(await other.token())).toHaveProperty('caller.actor.issuer', other.url)
  })

  it('S8: refuses every other kind of token by its type (RFC 8725 §3.11)', async () => {
    for (const typ of [undefined, 'JWT', 'logout+jwt', 'secevent+jwt', 'dpop+jwt', 'token-introspection+jwt', 'jwt', 'at+jwt2', 'text/at+jwt']) {
      expect(await ask(await issuer.token({}, { typ }))).toEqual(invalid(/typ/))
    }
  })

  it('S8: refuses ID, logout and security event tokens even where the entry accepts typ JWT (RFC 8725 §3.12)', async () => {
    const { ask: askOne } = createAsker([issuer.entry({ tokenTypes: ['JWT'] })])
    expect(await askOne(await issuer.token({}, { typ: 'JWT' }))).toHaveProperty('caller')
    for (const foreign of [{ nonce: 'n' }, { at_hash: 'h' }, { events: {} }, { events: null }, { nonce: '' }]) {
      expect(await askOne(await issuer.token(foreign, { typ: 'JWT' }))).toEqual(invalid(/not an access token/))
    }
  })

  it('S9: accepts nothing encrypted, whatever is inside (RFC 8725 §3.6)', async () => {
    const key = await importJWK(issuer.key('RS256').jwk, 'RSA-OAEP-256')
    const inner = new TextEncoder().encode(await issuer.token())
    const nested = await new CompactEncrypt(inner).setProtectedHeader({ alg: 'RSA-OAEP-256', enc: 'A256GCM', cty: 'JWT' }).encrypt(key)
    expect(await ask(nested)).toEqual(invalid(/encrypted/))
    const costly = `${encode({ alg: 'PBES2-HS256+A128KW', enc: 'A128GCM', p2c: 2_147_483_647, p2s: 'AAAA' })}.AAAA.AAAA.AAAA.AAAA`
    expect(await ask(costly)).toEqual(invalid(/encrypted/))
    const { ask: withIntrospection } = createAsker([issuer.introspectionEntry()])
    expect(await withIntrospection(nested)).toEqual(invalid(/encrypted/))
  })

  it('S10: refuses a token over 8 kB before it reads it', async () => {
    expect(await ask(await issuer.token({ pad: 'x'.repeat(8_000) }))).toEqual(invalid(/8 kB/))
    expect(await ask(await issuer.token({ pad: 'x'.repeat(4_000) }))).toHaveProperty('caller')
  })

  it('S13: gives a good token without permissions nothing', async () => {
    const answer = await ask(await issuer.token({ scope: 'session.delete', roles: ['admin'], admin: true }))
    expect(answer).toHaveProperty('caller')
    expect('caller' in answer ? answer.caller.grants.size : -1).toBe(0)
  })

  it('S14: refuses a token bound to a key, because its proof is not checked (RFC 9449 §7.1, RFC 8705 §3)', async () => {
    for (const cnf of [{ jkt: 'x' }, { 'x5t#S256': 'x' }, {}, null]) {
      expect(await ask(await issuer.token({ cnf }))).toEqual(invalid(/bound/))
    }
  })

  it('refuses a subject or a sid that cannot be one', async () => {
    for (const sub of [undefined, '', 7, null, ['a'], { a: 1 }, 'a\u0000b', 'x'.repeat(600)]) {
      expect(await ask(await issuer.token({ sub }))).toEqual(invalid(/sub/))
    }
    for (const sid of ['', 7, ['a'], { a: 1 }, 'a\u0000b', 'x'.repeat(600)]) {
      expect(await ask(await issuer.token({ sid }))).toEqual(invalid(/sid/))
    }
  })

  it('refuses a payload that is not a JSON object in UTF-8 (RFC 8725 §3.7)', async () => {
    const { kid, privateKey } = issuer.key('RS256')
    const bodies = ['null', '[]', '"x"', '7', '', '{', 'x'].map((text) => new TextEncoder().encode(text))
    for (const body of [...bodies, new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])]) {
      const token = await new CompactSign(body).setProtectedHeader({ alg: 'RS256', typ: 'at+jwt', kid }).sign(privateKey)
      expect(await ask(token)).toMatchObject({ refused: 'token_invalid' })
    }
  })

  it('never says in an answer or its cause what the token holds (G10)', async () => {
    const token = await issuer.token({ sub: 'secret-subject', aud: 'secret-audience' })
    expect(JSON.stringify(await ask(token))).not.toMatch(/secret-|eyJ/)
  })
})
