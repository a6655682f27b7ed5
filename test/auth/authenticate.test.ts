/** Remembering verified tokens: fast, for a minute at most, and never past `exp`. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { startIssuer } from '../harness/issuer.ts'
import type { TestIssuer } from '../harness/issuer.ts'
import { createAsker, createClock } from './bench.ts'

let issuer: TestIssuer
beforeAll(async () => {
  issuer = await startIssuer()
})
afterAll(() => issuer.close())

it('answers a token that it has seen at once, without a promise, and with the same caller', async () => {
  const { authenticate } = createAsker([issuer.entry()])
  const header = `Bearer ${await issuer.token()}`
  const first = authenticate(header)
  expect(first).toBeInstanceOf(Promise)
  expect(authenticate(header)).toBeInstanceOf(Promise)
  const caller = await first
  expect(authenticate(header)).toBe(caller)
})

it('S12: what is remembered answers for the whole header and no other, however alike their ends are', async () => {
  const { authenticate, askHeader } = createAsker([issuer.entry()])
  const token = await issuer.token({ permissions: ['session.read'] })
  const caller = await authenticate(`Bearer ${token}`)
  const [head = '', , signature = ''] = token.split('.')
  const forged = Buffer.from(JSON.stringify({ iss: issuer.url, aud: 'curfew', sub: 'root', exp: 9_999_999_999 })).toString('base64url')
  expect(await askHeader(`Bearer ${head}.${forged}.${signature}`)).toMatchObject({ refused: 'token_invalid' })
  expect(await askHeader(signature)).toMatchObject({ refused: 'auth_header_malformed' })
  expect(await askHeader(`Basic ${token}`)).toMatchObject({ refused: 'auth_header_malformed' })
  // Nor does a refusal make the good one forgotten.
  expect(authenticate(`Bearer ${token}`)).toBe(caller)
})

it('verifies anew after a minute: a withdrawn key is noticed', async () => {
  const clock = createClock()
  const { authenticate } = createAsker([issuer.entry()], { clock })
  const header = `Bearer ${await issuer.token()}`
  await authenticate(header)
  clock.pass(59_000)
  expect(authenticate(header)).not.toBeInstanceOf(Promise)
  clock.pass(2_000)
  const again = authenticate(header)
  expect(again).toBeInstanceOf(Promise)
  await again
})

it('never remembers past exp', async () => {
  const clock = createClock()
  const { authenticate, askHeader } = createAsker([issuer.entry()], { clock })
  const header = `Bearer ${await issuer.token({ exp: Math.floor(clock.now() / 1_000) + 20 })}`
  await authenticate(header)
  expect(authenticate(header)).not.toBeInstanceOf(Promise)
  clock.pass(21_000)
  // Within the tolerance it still passes, by verifying.
  const late = authenticate(header)
  expect(late).toBeInstanceOf(Promise)
  await late
  clock.pass(30_000)
  expect(await askHeader(header)).toMatchObject({ refused: 'token_invalid' })
})

it('never remembers a refusal', async () => {
  const clock = createClock()
  const { ask } = createAsker([issuer.entry()], { clock })
  const token = await issuer.token({ nbf: Math.floor(clock.now() / 1_000) + 40 })
  expect(await ask(token)).toMatchObject({ refused: 'token_invalid' })
  clock.pass(15_000)
  expect(await ask(token)).toHaveProperty('caller')
})

it('F33: a wall clock that jumps back an hour does not prolong what is remembered', async () => {
  const clock = createClock()
  let backMs = 0
  const { authenticate } = createAsker([issuer.entry()], { clock: { ...clock, now: () => clock.now() - backMs } })
  const header = `Bearer ${await issuer.token({ iat: undefined })}`
  await authenticate(header)
  backMs = 3_600_000
  clock.pass(61_000)
  const again = authenticate(header)
  expect(again).toBeInstanceOf(Promise)
  await again
})

it('keeps issuers apart, with their audiences, types and algorithms', async () => {
  const second = await startIssuer({ algorithms: ['EdDSA'] })
  const { ask } = createAsker([
    issuer.entry({ audience: ['a', 'b'] }),
    second.entry({ audience: 'c', tokenTypes: ['JWT', 'application/at+jwt'], sessionIssuers: ['https://elsewhere.example'] }),
  ])
  expect(await ask(await issuer.token({ aud: 'b' }))).toHaveProperty('caller')
  expect(await ask(await issuer.token({ aud: 'c' }))).toMatchObject({ refused: 'token_invalid' })
  expect(await ask(await second.token({ aud: 'c' }, { typ: 'JWT' }))).toMatchObject({
    caller: { actor: { issuer: second.url }, sessionIssuers: ['https://elsewhere.example'] },
  })
  expect(await ask(await second.token({ aud: 'c' }))).toHaveProperty('caller')
  expect(await ask(await second.token({ aud: 'a' }))).toMatchObject({ refused: 'token_invalid' })
  await second.close()
})
