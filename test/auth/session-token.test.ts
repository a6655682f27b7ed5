import fc from 'fast-check'
import { expect, it } from 'vitest'
import { hashSessionToken, newSessionToken, sessionTokenMatches } from '../../src/auth/session-token.ts'

it('holds 256 random bits, and its hash 32 bytes that are not the token', () => {
  const tokens = Array.from({ length: 1_000 }, () => newSessionToken())
  expect(new Set(tokens.map(({ token }) => token)).size).toBe(1_000)
  for (const { token, hash } of tokens) {
    expect(Buffer.from(token, 'base64url')).toHaveLength(32)
    expect(hash).toHaveLength(32)
    expect(Buffer.from(hash)).toEqual(hashSessionToken(token))
    expect(Buffer.from(hash)).not.toEqual(Buffer.from(token, 'base64url'))
  }
})

it('matches its own hash and nothing else', () => {
  const { token, hash } = newSessionToken()
  expect(sessionTokenMatches(token, hash)).toBe(true)
  expect(sessionTokenMatches(token, null)).toBe(false)
  expect(sessionTokenMatches('', hash)).toBe(false)
  expect(sessionTokenMatches('', null)).toBe(false)
  expect(sessionTokenMatches('', new Uint8Array())).toBe(false)
  expect(sessionTokenMatches(token, hash.slice(0, 31))).toBe(false)
  expect(sessionTokenMatches(token, new Uint8Array([...hash, 0]))).toBe(false)
  fc.assert(fc.property(fc.string(), (other) => sessionTokenMatches(other, hash) === (other === token)))
})
