/** OpenID Connect Back-Channel Logout 1.0 incorporating errata set 1, by section, as a sender must keep it. */
import { createLocalJWKSet, decodeJwt, decodeProtectedHeader, jwtVerify } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { LOGOUT_EVENT } from '../../src/channels/backchannel-logout.ts'
import type { ChannelDelivery, ChannelReceiver } from '../../src/channels/channel.ts'
import { remoteChannelContract } from '../contracts/remote-channel.ts'
import { openGround } from '../delivery/ground.ts'
import type { Ground } from '../delivery/ground.ts'
import { ISSUER } from '../harness/seed.ts'

const delivery: ChannelDelivery = { id: '1', sessionId: 's1', clientId: 'app', sid: 'the-sid', sub: 'the-sub', issuer: ISSUER, termination: null, completion: null, ofUser: false }
const receiver: ChannelReceiver = { id: 'r1', url: 'https://rp.example/logout', clientId: 'app', subject: 'sid', alg: 'RS256', secrets: [] }

describe('OpenID Connect Back-Channel Logout 1.0', () => {
  let ground: Ground
  beforeAll(async () => { ground = await openGround() })
  afterAll(() => ground.close())

  remoteChannelContract('back-channel logout', async () => ({
    channel: ground.backchannel, receiver, delivery,
    freshPart: ({ body }) => decodeJwt(new URLSearchParams(body).get('logout_token') ?? '').jti ?? '',
    pass: () => {},
  }))

  const tokenFor = async (changed: Partial<ChannelReceiver> = {}): Promise<string> => {
    const { body } = await ground.backchannel.compose(delivery, { ...receiver, ...changed })
    return new URLSearchParams(body).get('logout_token') ?? ''
  }
  const verify = async (token: string) => jwtVerify(token, createLocalJWKSet(await ground.signer.publicJwks(ISSUER)), {
    issuer: ISSUER, audience: 'app', typ: 'logout+jwt', requiredClaims: ['iss', 'aud', 'iat', 'exp', 'jti', 'events'],
  })

  describe('§2.4 logout token', () => {
    it('carries iss, aud, iat, exp, jti and events, and is of the issuer and for the client', async () => {
      const { payload } = await verify(await tokenFor())
      expect(Object.keys(payload).toSorted()).toEqual(['aud', 'events', 'exp', 'iat', 'iss', 'jti', 'sid'])
      expect(payload).toMatchObject({ iss: ISSUER, aud: 'app', sid: 'the-sid' })
    })

    it('names the event with an empty object under its http name', async () => {
      expect(decodeJwt(await tokenFor())['events']).toEqual({ 'http://schemas.openid.net/event/backchannel-logout': {} })
      expect(LOGOUT_EVENT.startsWith('http:')).toBe(true)
    })

    it('carries sid alone, sub alone or both, as the receiver is set', async () => {
      const subjectOf = async (subject: ChannelReceiver['subject']) => {
        const { sid, sub } = decodeJwt(await tokenFor({ subject }))
        return { sid, sub }
      }
      expect(await subjectOf('sid')).toEqual({ sid: 'the-sid', sub: undefined })
      expect(await subjectOf('sub')).toEqual({ sid: undefined, sub: 'the-sub' })
      expect(await subjectOf('both')).toEqual({ sid: 'the-sid', sub: 'the-sub' })
    })

    it('never carries a nonce', async () => {
      for (const subject of ['sid', 'sub', 'both'] as const) expect(decodeJwt(await tokenFor({ subject }))).not.toHaveProperty('nonce')
    })

    it('is typed logout+jwt, signed with RS256 unless the receiver is set otherwise, and never unsigned', async () => {
      expect(decodeProtectedHeader(await tokenFor())).toMatchObject({ typ: 'logout+jwt', alg: 'RS256' })
      const es256 = await tokenFor({ alg: 'ES256' })
      expect(decodeProtectedHeader(es256).alg).toBe('ES256')
      await verify(es256)
      for (const alg of ['none', 'HS256', '']) await expect(tokenFor({ alg })).rejects.toMatchObject({ kind: 'invalid_argument' })
    })

    it('is signed with the key that its kid names in the issuer’s key set', async () => {
      const { kid } = decodeProtectedHeader(await tokenFor())
      const { keys } = await ground.signer.publicJwks(ISSUER)
      expect(keys.find((key) => key.kid === kid)).toMatchObject({ use: 'sig', alg: 'RS256', kty: 'RSA' })
      for (const key of keys) expect(key).not.toHaveProperty('d')
    })

    it('has a jti of its own for each attempt', async () => {
      const jtis = await Promise.all(Array.from({ length: 20 }, async () => decodeJwt(await tokenFor()).jti))
      expect(new Set(jtis).size).toBe(20)
    })
  })

  describe('§2.5 request', () => {
    it('is a form with the one field logout_token', async () => {
      const request = await ground.backchannel.compose(delivery, receiver)
      expect(request.headers['content-type']).toBe('application/x-www-form-urlencoded')
      expect([...new URLSearchParams(request.body).keys()]).toEqual(['logout_token'])
    })
  })

  describe('§2.8 response', () => {
    const judged = (status: number) => ground.backchannel.judge({ status, retryAfterMs: null, body: '' }).verdict
    it('takes 200 and 204 for success, and nothing else', () => {
      const delivered = Array.from({ length: 400 }, (_, at) => at + 200).filter((status) => judged(status) === 'delivered')
      expect(delivered).toEqual([200, 204])
    })

    it('does not send again after 400, any other refusal or 501', () => {
      for (const status of [400, 401, 403, 404, 405, 410, 413, 415, 422, 501]) expect(judged(status)).toBe('gave_up')
    })

    it('sends again where the fault may pass (§2.5)', () => {
      for (const status of [408, 429, 500, 502, 503, 504, 599]) expect(judged(status)).toBe('retry')
    })
  })

  describe('§4 security considerations', () => {
    it('lives at most two minutes, from the time of the attempt', async () => {
      const { iat = 0, exp = 0 } = decodeJwt(await tokenFor())
      expect(exp - iat).toBe(120)
      expect(Math.abs(Date.now() / 1_000 - iat)).toBeLessThan(5)
    })
  })
})
