import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { calculateJwkThumbprint, createLocalJWKSet, exportJWK, generateKeyPair, jwtVerify } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createSigner } from '../../src/channels/signing.ts'
import { KeyringError, createKeyring } from '../../src/keys.ts'
import { openGround } from '../delivery/ground.ts'
import type { Ground } from '../delivery/ground.ts'

describe('signing in an issuer’s name', () => {
  let ground: Ground
  beforeAll(async () => { ground = await openGround() })
  afterAll(() => ground.close())

  const sign = (issuer: string, alg = 'ES256', signer = ground.signer) => signer.sign({ issuer, alg, typ: 'logout+jwt', claims: { iss: issuer } })
  const verified = async (issuer: string, token: string) => (await jwtVerify(token, createLocalJWKSet(await ground.signer.publicJwks(issuer)))).protectedHeader

  it('makes one key where many processes need one at once', async () => {
    const keyring = createKeyring({ encryptionKey: randomBytes(32), encryptionKeyPrevious: null })
    const signers = Array.from({ length: 8 }, () => createSigner({ db: ground.db, keyring }))
    const ensured = await Promise.all(signers.map((signer) => signer.ensureKey('https://many', 'ES256')))
    expect(new Set(ensured.map(({ kid }) => kid)).size).toBe(1)
    expect(ensured.filter(({ made }) => made)).toHaveLength(1)
    expect(await ground.signer.list('https://many')).toHaveLength(1)
  })

  it.each(['RS256', 'ES256'])('signs %s so that others verify it', async (alg) => {
    expect(await verified('https://algs', await sign('https://algs', alg))).toMatchObject({ alg })
  })

  it('signs with an imported key, under the kid that it came with, and publishes no private part', async () => {
    const { privateKey } = await generateKeyPair('RS256', { extractable: true })
    const jwk = await exportJWK(privateKey)
    expect(await ground.signer.importKey('https://import', { ...jwk, kid: 'their-kid' })).toEqual({ kid: 'their-kid', alg: 'RS256' })
    expect(await verified('https://import', await sign('https://import', 'RS256'))).toMatchObject({ kid: 'their-kid' })
    const { keys } = await ground.signer.publicJwks('https://import')
    expect(keys).toEqual([{ kty: 'RSA', n: jwk.n, e: jwk.e, kid: 'their-kid', alg: 'RS256', use: 'sig' }])
  })

  it('names a key without a kid by its thumbprint (RFC 7638), from JWK text and from PEM alike', async () => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const jwk = privateKey.export({ format: 'jwk' })
    const kid = await calculateJwkThumbprint({ kty: 'EC', crv: 'P-256', x: String(jwk.x), y: String(jwk.y) })
    expect(await ground.signer.importKey('https://pem', privateKey.export({ format: 'pem', type: 'pkcs8' }) as string)).toEqual({ kid, alg: 'ES256' })
    expect(await ground.signer.importKey('https://pem', JSON.stringify(jwk))).toEqual({ kid, alg: 'ES256' })
    expect(await ground.signer.list('https://pem')).toHaveLength(1)
  })

  it('refuses keys that must not sign, and says why without showing them', async () => {
    const weak = generateKeyPairSync('rsa', { modulusLength: 1_024 })
    const strong = generateKeyPairSync('rsa', { modulusLength: 2_048 })
    const p384 = generateKeyPairSync('ec', { namedCurve: 'P-384' })
    const refusals: [unknown, RegExp][] = [
      [weak.privateKey.export({ format: 'jwk' }), /2048 bits/],
      [{ kty: 'oct', k: randomBytes(32).toString('base64url') }, /symmetric/],
      [strong.publicKey.export({ format: 'jwk' }), /public key/],
      [strong.publicKey.export({ format: 'pem', type: 'spki' }), /public key/],
      [p384.privateKey.export({ format: 'jwk' }), /P-256/],
      [{ ...strong.privateKey.export({ format: 'jwk' }), alg: 'PS256' }, /alg/],
      [{ ...strong.privateKey.export({ format: 'jwk' }), use: 'enc' }, /signing/],
      [{ ...strong.privateKey.export({ format: 'jwk' }), kid: '' }, /kid/],
      ['nonsense', /PEM/],
      ['{"kty":', /JSON/],
      ['{}', /public key/],
    ]
    for (const [key, why] of refusals) {
      const refused = ground.signer.importKey('https://refuse', key as string)
      await expect(refused).rejects.toMatchObject({ kind: 'invalid_argument', says: expect.stringMatching(why) as string })
    }
    expect(await ground.signer.list('https://refuse')).toEqual([])
  })

  it('refuses another key under a kid that is taken, and the same key for another issuer', async () => {
    const one = await exportJWK((await generateKeyPair('ES256', { extractable: true })).privateKey)
    const other = await exportJWK((await generateKeyPair('ES256', { extractable: true })).privateKey)
    await ground.signer.importKey('https://taken', { ...one, kid: 'taken' })
    await expect(ground.signer.importKey('https://taken', { ...other, kid: 'taken' })).rejects.toMatchObject({ kind: 'invalid_argument' })
    await expect(ground.signer.importKey('https://elsewhere', { ...one, kid: 'taken' })).rejects.toMatchObject({ kind: 'invalid_argument' })
  })

  it('signs again with a key that is imported once more, where what was stored cannot be read any longer', async () => {
    const jwk = await exportJWK((await generateKeyPair('ES256', { extractable: true })).privateKey)
    await ground.signer.importKey('https://lost', { ...jwk, kid: 'lost' })
    const anew = createSigner({ db: ground.db, keyring: createKeyring({ encryptionKey: randomBytes(32), encryptionKeyPrevious: null }) })
    await expect(sign('https://lost', 'ES256', anew)).rejects.toThrow(KeyringError)
    await anew.importKey('https://lost', { ...jwk, kid: 'lost' })
    expect(await verified('https://lost', await sign('https://lost', 'ES256', anew))).toMatchObject({ kid: 'lost' })
  })

  it('rotates in two steps: the next key is published before it signs, the former stays published', async () => {
    const issuer = 'https://rotate'
    const first = await sign(issuer)
    const rotated = await ground.signer.rotate(issuer, 'ES256')
    const made = 'made' in rotated ? rotated.made : ''
    expect((await ground.signer.publicJwks(issuer)).keys).toHaveLength(2)
    expect((await verified(issuer, await sign(issuer))).kid).not.toBe(made)
    expect(await ground.signer.rotate(issuer, 'ES256', { force: true })).toMatchObject({ promoted: made })
    const second = await sign(issuer)
    expect((await verified(issuer, second)).kid).toBe(made)
    expect((await verified(issuer, first)).kid).not.toBe(made)
    expect((await ground.signer.list(issuer)).map(({ state }) => state).toSorted()).toEqual(['current', 'retired'])
  })

  it('publishes a retired key for a day', async () => {
    const issuer = 'https://retired'
    await ground.signer.ensureKey(issuer, 'ES256')
    await ground.signer.rotate(issuer, 'ES256')
    await ground.signer.rotate(issuer, 'ES256', { force: true })
    expect((await ground.signer.publicJwks(issuer)).keys).toHaveLength(2)
    await ground.sql.query(`UPDATE signing_keys SET retired_at = now() - interval '25 h' WHERE issuer = $1 AND state = 'retired'`, [issuer])
    expect((await ground.signer.publicJwks(issuer)).keys).toHaveLength(1)
  })

  it('follows a rotation that another process made', async () => {
    const issuer = 'https://follow'
    const keyring = createKeyring({ encryptionKey: randomBytes(32), encryptionKeyPrevious: null })
    let nowMs = 0
    const [one, other] = [createSigner({ db: ground.db, keyring, now: () => nowMs }), createSigner({ db: ground.db, keyring })]
    const before = await verified(issuer, await sign(issuer, 'ES256', one))
    await other.rotate(issuer, 'ES256')
    await other.rotate(issuer, 'ES256', { force: true })
    nowMs = 10_000
    const after = await verified(issuer, await sign(issuer, 'ES256', one))
    expect(after.kid).not.toBe(before.kid)
  })

  it('G10: keeps private keys encrypted in Postgres, bound to their row', async () => {
    await ground.signer.ensureKey('https://sealed', 'RS256')
    const { rows } = await ground.sql.query<{ text: string }>(`SELECT to_jsonb(k)::text AS text FROM signing_keys k WHERE issuer = 'https://sealed'`)
    expect(rows[0]?.text).not.toMatch(/"d"|"p"|"q"|PRIVATE/)
    await ground.signer.ensureKey('https://moved', 'RS256')
    await ground.sql.query(`UPDATE signing_keys SET private_key = (SELECT private_key FROM signing_keys WHERE issuer = 'https://sealed') WHERE issuer = 'https://moved'`)
    await expect(sign('https://moved', 'RS256', createSigner({ db: ground.db, keyring: ground.keyring }))).rejects.toThrow(KeyringError)
  })
})

describe('the keyring', () => {
  const [one, two] = [randomBytes(32), randomBytes(32)]

  it('reads what was encrypted under the former key, and encrypts under the new', () => {
    const before = createKeyring({ encryptionKey: one, encryptionKeyPrevious: null })
    const after = createKeyring({ encryptionKey: two, encryptionKeyPrevious: one })
    const old = before.encrypt('secret')
    expect(after.decrypt(old)).toBe('secret')
    expect(createKeyring({ encryptionKey: two, encryptionKeyPrevious: null }).decrypt(after.encrypt('secret'))).toBe('secret')
    expect(() => createKeyring({ encryptionKey: two, encryptionKeyPrevious: null }).decrypt(old)).toThrow(/not configured/)
  })

  it('never writes the same ciphertext twice', () => {
    const { encrypt } = createKeyring({ encryptionKey: one, encryptionKeyPrevious: null })
    expect(encrypt('x')).not.toBe(encrypt('x'))
  })

  it('refuses what was changed, cut, moved or is of another form', () => {
    const { encrypt, decrypt } = createKeyring({ encryptionKey: one, encryptionKeyPrevious: null })
    const sealed = encrypt('secret', 'here')
    expect(decrypt(sealed, 'here')).toBe('secret')
    const parts = sealed.split('.')
    const flipped = [...parts.slice(0, 3), `${parts[3]?.startsWith('A') === true ? 'B' : 'A'}${parts[3]?.slice(1)}`].join('.')
    for (const [text, boundTo] of [[sealed, 'there'], [flipped, 'here'], [sealed.slice(0, -4), 'here']] as const) expect(() => decrypt(text, boundTo)).toThrow(KeyringError)
    for (const text of ['', 'v2.a.b.c', 'secret', parts.slice(0, 3).join('.')]) expect(() => decrypt(text)).toThrow(KeyringError)
  })
})
