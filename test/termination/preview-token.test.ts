import { randomBytes } from 'node:crypto'
import { expect, it } from 'vitest'
import { PREVIEW_TOKEN_SECONDS, createPreviewTokens } from '../../src/termination/preview-token.ts'

const secret = randomBytes(32)
const at = (nowMs: number, secrets: { secret: Uint8Array; secretPrevious: Uint8Array | null } = { secret, secretPrevious: null }) =>
  createPreviewTokens({ ...secrets, now: () => nowMs })
const BOUND = '["caller","request"]'
const seen = { count: 1_234, exact: true }

it('says the count that was seen, exact or not, for ten minutes', () => {
  for (const counted of [seen, { count: 100_000, exact: false }, { count: 0, exact: true }]) {
    const { token, expiresMs } = at(1_000).issue(counted, BOUND)
    expect(expiresMs).toBe(1_000 + PREVIEW_TOKEN_SECONDS * 1_000)
    expect(at(expiresMs).open(token, BOUND)).toEqual(counted)
    expect(at(expiresMs + 1).open(token, BOUND)).toBeNull()
  }
})

it('is worth nothing for another caller or request, or where a character of it was changed', () => {
  const { token } = at(0).issue(seen, BOUND)
  expect(at(0).open(token, `${BOUND} `)).toBeNull()
  for (let n = 0; n < token.length; n += 1) {
    const changed = token.slice(0, n) + (token[n] === '7' ? '8' : '7') + token.slice(n + 1)
    // The last character of 43 carries four bits: some changes are none.
    if (n < token.length - 1) expect(at(0).open(changed, BOUND)).toBeNull()
  }
  for (const made of ['', '.', token.replace('.', '.~'), `${token}=`, token.split('.')[2] ?? '']) expect(at(0).open(made, BOUND)).toBeNull()
})

it('outlives a change of the secret while the former is accepted', () => {
  const { token } = at(0).issue(seen, BOUND)
  const next = randomBytes(32)
  expect(at(0, { secret: next, secretPrevious: secret }).open(token, BOUND)).toEqual(seen)
  expect(at(0, { secret: next, secretPrevious: null }).open(token, BOUND)).toBeNull()
})
