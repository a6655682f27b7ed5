/**
 * Project Wycheproof's JOSE vectors through our own verifier: the key set as it would be fetched, the envelope,
 * the signature step; and each token once more through the whole of authentication.
 *
 * What is valid and signed with an algorithm that we can be set to accept passes the signature step; what is
 * invalid is refused, and what is symmetric or encrypted is never accepted, valid or not.
 */
import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { readEnvelope } from '../../src/auth/envelope.ts'
import { readKeySet } from '../../src/auth/key-set.ts'
import { verifySignature } from '../../src/auth/signature.ts'
import type { IssuerEntry } from '../../src/config.ts'
import { createAsker } from '../auth/bench.ts'

const folder = fileURLToPath(new URL('../../../shared/data/wycheproof/', import.meta.url))
const missing = !existsSync(folder)
const why = missing ? ' (skipped: the vectors are not on this machine)' : ''

interface Vector {
  readonly tcId: number
  readonly comment: string
  readonly result: 'valid' | 'invalid'
  readonly jws?: unknown
  readonly jwe?: unknown
}
interface Group {
  readonly comment: string
  readonly public?: Record<string, unknown>
  readonly private: Record<string, unknown>
  readonly tests: readonly Vector[]
}

const groupsOf = (name: string): readonly Group[] =>
  missing ? [] : (JSON.parse(readFileSync(`${folder}${name}.json`, 'utf8')) as { testGroups: Group[] }).testGroups

const signatureFiles = ['json_web_signature_test', 'json_web_key_test', 'json_web_crypto_test']
const signed = signatureFiles.flatMap((file) =>
  groupsOf(file).flatMap((group) => group.tests.filter(({ jws }) => jws !== undefined).map((test) => ({ file, group, test }))),
)
const encrypted = ['json_web_encryption_test', 'json_web_crypto_test'].flatMap((file) =>
  groupsOf(file).flatMap((group) => group.tests.filter(({ jwe }) => jwe !== undefined).map((test) => ({ file, group, test }))),
)

const algorithms: IssuerEntry['algorithms'] = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519']

/** As an issuer would publish it; a group without a public key has only a secret to show. */
const setOf = ({ public: published, private: secret }: Group): unknown => {
  const jwk = published ?? secret
  return 'keys' in jwk ? jwk : { keys: [jwk] }
}

/** A few vectors are JSON serializations: what would stand in a header is their text. */
const textOf = (token: unknown): string => (typeof token === 'string' ? token : JSON.stringify(token))

const passesSignature = async (group: Group, token: unknown): Promise<boolean> => {
  try {
    const envelope = readEnvelope(textOf(token))
    await verifySignature(envelope, readKeySet(setOf(group)), algorithms)
    return true
  } catch {
    return false
  }
}

/**
 * An algorithm of ours, and the one that the key is for: a few vectors use a key for another algorithm of its kind
 * than the key names, which RFC 8725 §3.1 advises against and we refuse.
 */
const isAcceptable = (group: Group, token: unknown): boolean => {
  const published = group.public ?? {}
  const keys = (Array.isArray(published['keys']) ? published['keys'] : [published]) as Record<string, unknown>[]
  const { alg } = JSON.parse(Buffer.from(textOf(token).split('.')[0] ?? '', 'base64url').toString()) as { alg: string }
  return (algorithms as string[]).includes(alg) && keys.some((key) => key['alg'] === alg)
}

describe.skipIf(missing)(`Wycheproof JWS and JWK vectors${why}`, () => {
  it('are all there', () => {
    expect(signed.length).toBe(401 + 26 + 49)
    expect(encrypted.length).toBe(139 + 34)
  })

  it('accepts in the signature step every valid one of an algorithm that we accept', async () => {
    const valid = signed.filter(({ group, test }) => test.result === 'valid' && isAcceptable(group, test.jws))
    expect(valid.length).toBeGreaterThanOrEqual(30)
    const failed: string[] = []
    for (const { file, group, test } of valid) {
      if (!(await passesSignature(group, test.jws))) failed.push(`${file} ${test.tcId} ${group.comment}: ${test.comment}`)
    }
    expect(failed).toEqual([])
  })

  it('refuses every invalid one', async () => {
    const accepted: string[] = []
    for (const { file, group, test } of signed.filter((one) => one.test.result === 'invalid')) {
      if (await passesSignature(group, test.jws)) accepted.push(`${file} ${test.tcId} ${group.comment}: ${test.comment}`)
    }
    expect(accepted).toEqual([])
  })

  it('refuses every symmetric one, valid or not (RFC 8725 §3.1)', async () => {
    const symmetric = signed.filter(({ group }) => JSON.stringify(group.private).includes('"kty":"oct"'))
    expect(symmetric.length).toBeGreaterThan(40)
    for (const { group, test } of symmetric) expect(await passesSignature(group, test.jws), `${test.tcId}`).toBe(false)
  })
})

describe.skipIf(missing)(`the same vectors as bearer tokens${why}`, () => {
  const askWith = (group: Group, token: unknown) => {
    const entry: IssuerEntry = {
      issuer: 'https://issuer.example',
      audience: 'curfew',
      jwksUri: 'https://issuer.example/keys',
      algorithms,
      tokenTypes: ['at+jwt', 'JWT'],
      permissionClaims: ['permissions'],
      roles: {},
      instance: true,
    }
    const fetch = async () => new Response(JSON.stringify(setOf(group)), { headers: { 'content-type': 'application/json' } })
    return createAsker([entry], { fetch }).ask(textOf(token))
  }

  it('make nobody a caller', async () => {
    for (const { group, test } of signed) {
      expect(await askWith(group, test.jws), `${test.tcId} ${group.comment}`).toHaveProperty('refused')
    }
  })

  it('are never accepted encrypted, whatever is inside (RFC 8725 §3.6)', async () => {
    for (const { group, test } of encrypted) {
      const answer = await askWith(group, test.jwe)
      expect(answer, `${test.tcId} ${group.comment}`).toHaveProperty('refused', expect.stringMatching(/^(token_invalid|auth_header_malformed)$/))
    }
  })
})
