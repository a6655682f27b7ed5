import { createLocalJWKSet, decodeProtectedHeader, jwtVerify } from 'jose'
import type { JSONWebKeySet } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { answer, startReceiver } from '../harness/receiver.ts'
import type { TestReceiver } from '../harness/receiver.ts'
import { ISSUER } from '../harness/seed.ts'
import { openGround } from './ground.ts'
import type { Ground } from './ground.ts'

describe('a signing key that is rotated while deliveries are overdue', () => {
  let ground: Ground
  let receiver: TestReceiver
  beforeAll(async () => {
    ground = await openGround()
    receiver = await startReceiver()
  })
  afterAll(async () => {
    await receiver.close()
    await ground.close()
  })

  it('F37: late deliveries carry the new key’s signature, and all verify against the key set as it is when they come', async () => {
    await ground.put('late', { url: receiver.url, alg: 'RS256' })
    const keySets: JSONWebKeySet[] = []
    const answering = (status: number) => {
      receiver.always((response, request, count) => {
        void ground.signer.publicJwks(ISSUER).then((keys) => {
          keySets[count] = keys
          answer(status)(response, request, count)
        })
      })
    }
    const lane = ground.deliverLane({ retry: { minMs: 0, maxMs: 0 }, breaker: { failures: 3, minMs: 1, maxMs: 1 } })
    answering(503)
    await ground.endSessions('late', 20)
    await lane.deliver('late')
    await expect.poll(() => receiver.requests.length).toBeGreaterThan(0)
    await ground.signer.rotate(ISSUER, 'RS256')
    await ground.signer.rotate(ISSUER, 'RS256', { force: true })
    answering(200)
    await expect.poll(async () => {
      await lane.deliver('late')
      return ground.states('late')
    }).toEqual({ acknowledged: 20 })
    const tokens = receiver.tokens()
    for (const [at, token] of tokens.entries()) await jwtVerify(token, createLocalJWKSet(keySets[at] ?? { keys: [] }), { issuer: ISSUER })
    const kids = new Set(tokens.map((token) => decodeProtectedHeader(token).kid))
    expect(kids.size).toBe(2)
    expect(decodeProtectedHeader(tokens.at(-1) ?? '').kid).toBe((await ground.signer.currentKey(ISSUER, 'RS256')).kid)
  })
})
