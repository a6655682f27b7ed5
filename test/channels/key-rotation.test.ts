import { randomBytes } from 'node:crypto'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { createLocalJWKSet, decodeProtectedHeader, jwtVerify } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { KeyTooYoung, createSigner } from '../../src/channels/signing.ts'
import { createKeyring } from '../../src/keys.ts'
import { openGround } from '../delivery/ground.ts'
import type { Ground } from '../delivery/ground.ts'

const DAY = 86_400

describe('rotating a signing key', () => {
  let ground: Ground
  const keyring = createKeyring({ encryptionKey: randomBytes(32), encryptionKeyPrevious: null })
  beforeAll(async () => { ground = await openGround() })
  afterAll(() => ground.close())

  /** A process of its own: nothing is shared but Postgres. */
  const open = (options: Partial<Parameters<typeof createSigner>[0]> = {}) => createSigner({ db: ground.db, keyring, ...options })
  const kidOf = async (issuer: string, signer = open()) =>
    decodeProtectedHeader(await signer.sign({ issuer, alg: 'ES256', typ: 'logout+jwt', claims: {} })).kid
  const age = (issuer: string, column: string, seconds: number) =>
    ground.sql.query(`UPDATE signing_keys SET ${column} = ${column} - make_interval(secs => $2) WHERE issuer = $1`, [issuer, seconds])

  it('lets the next key sign only once it was published for the overlap', async () => {
    const issuer = 'https://overlap'
    const before = await kidOf(issuer)
    const rotated = await open().rotate(issuer, 'ES256')
    if (!('made' in rotated)) throw new Error('There was a next key before')
    expect(Math.abs(rotated.ripeAt.getTime() - Date.now() - DAY * 1_000)).toBeLessThan(60_000)
    await expect(open().rotate(issuer, 'ES256')).rejects.toThrow(/may sign from/)
    await age(issuer, 'created_at', DAY - 60)
    await expect(open().rotate(issuer, 'ES256')).rejects.toThrow(KeyTooYoung)
    expect(await kidOf(issuer)).toBe(before)
    expect((await open().publicJwks(issuer)).keys.map(({ kid }) => kid).toSorted()).toEqual([before, rotated.made].toSorted())
    await age(issuer, 'created_at', 60)
    expect(await open().rotate(issuer, 'ES256')).toEqual({ promoted: rotated.made, retired: before })
    expect(await kidOf(issuer)).toBe(rotated.made)
  })

  it('keeps the overlap that is configured, and passes over it where it is forced', async () => {
    const issuer = 'https://forced'
    await open().rotate(issuer, 'ES256')
    await expect(open({ overlapSeconds: 3_600 }).rotate(issuer, 'ES256')).rejects.toThrow(KeyTooYoung)
    expect(await open({ overlapSeconds: 3_600 }).rotate(issuer, 'ES256', { force: true })).toHaveProperty('promoted')
  })

  it('publishes the retired key for the horizon, and no longer', async () => {
    const issuer = 'https://horizon'
    const signer = open({ retiredSeconds: 3 * DAY })
    await signer.rotate(issuer, 'ES256')
    await signer.rotate(issuer, 'ES256', { force: true })
    await age(issuer, 'retired_at', 3 * DAY)
    expect((await signer.publicJwks(issuer)).keys).toHaveLength(2)
    await age(issuer, 'retired_at', 600)
    expect((await signer.publicJwks(issuer)).keys).toHaveLength(1)
  })

  it('is promoted once where two do it at the same moment', async () => {
    const issuer = 'https://together'
    await open().rotate(issuer, 'ES256')
    await age(issuer, 'created_at', DAY)
    const results = await Promise.allSettled(Array.from({ length: 4 }, () => open().rotate(issuer, 'ES256')))
    const promoted = results.flatMap((result) => (result.status === 'fulfilled' && 'promoted' in result.value ? [result.value.promoted] : []))
    expect(new Set(promoted).size).toBe(1)
    const states = (await open().list(issuer)).map(({ state }) => state)
    expect(states.filter((state) => state === 'current')).toHaveLength(1)
  })

  it('is followed by every process within its refresh, and what it signs before is still verified', async () => {
    const issuer = 'https://followed'
    let nowMs = 0
    const processes = Array.from({ length: 3 }, () => open({ now: () => nowMs }))
    const before = await Promise.all(processes.map((signer) => kidOf(issuer, signer)))
    await open().rotate(issuer, 'ES256')
    await open().rotate(issuer, 'ES256', { force: true })
    nowMs = 4_999
    const [late] = processes
    const token = await late?.sign({ issuer, alg: 'ES256', typ: 'logout+jwt', claims: {} }) ?? ''
    expect(decodeProtectedHeader(token).kid).toBe(before[0])
    await jwtVerify(token, createLocalJWKSet(await open().publicJwks(issuer)))
    nowMs = 5_000
    const after = await Promise.all(processes.map((signer) => kidOf(issuer, signer)))
    expect(new Set(after).size).toBe(1)
    expect(after[0]).not.toBe(before[0])
  })

  it.each(['RS256', 'ES256'])('signing 500 tokens with %s does not hold the event loop', async (alg) => {
    const signer = open()
    const sign = () => signer.sign({ issuer: 'https://busy', alg, typ: 'logout+jwt', claims: { sid: 'x' } })
    await sign()
    const delay = monitorEventLoopDelay({ resolution: 1 })
    delay.enable()
    const startedMs = performance.now()
    await Promise.all(Array.from({ length: 500 }, sign))
    const tookMs = performance.now() - startedMs
    delay.disable()
    // Signed on the loop itself, the longest delay would be nearly all the time that it took.
    expect(delay.max / 1e6).toBeLessThan(Math.max(25, tookMs / 3))
  })
})
