/** Standard Webhooks 1.0, as a sender must keep it; verified by the specification's own library. */
import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { Webhook } from 'standardwebhooks'
import { beforeEach, describe, expect, it } from 'vitest'
import { sessionTerminatedEvent } from '../../src/api/webhook-document.ts'
import type { ChannelDelivery, ChannelReceiver, OutboundRequest } from '../../src/channels/channel.ts'
import { createWebhook } from '../../src/channels/webhook.ts'
import { createWebhookSecrets } from '../../src/channels/webhook-secret.ts'
import { createKeyring } from '../../src/keys.ts'
import { remoteChannelContract } from '../contracts/remote-channel.ts'
import { ISSUER } from '../harness/seed.ts'

const delivery: ChannelDelivery = {
  id: '1', sessionId: 's1', clientId: '', sid: 's1', sub: 'u1', issuer: ISSUER,
  termination: { resourceOwner: 'o1', mode: 'revoke', reason: 'stolen laptop', sequence: '2', terminatedAtMs: Date.UTC(2026, 0, 1) },
  completion: null, ofUser: false,
}

describe('Standard Webhooks 1.0', () => {
  const secrets = createWebhookSecrets(createKeyring({ encryptionKey: randomBytes(32), encryptionKeyPrevious: null }))
  let nowMs = Date.now()
  beforeEach(() => { nowMs = Date.now() })
  const channel = createWebhook({ openSecret: secrets.open, now: () => nowMs })
  const { shown, sealed } = secrets.make('r1')
  const receiver: ChannelReceiver = { id: 'r1', url: 'https://rp.example/hook', clientId: null, subject: 'sid', alg: 'RS256', secrets: [sealed] }
  const compose = (changed: { delivery?: Partial<ChannelDelivery>; receiver?: Partial<ChannelReceiver> } = {}) =>
    channel.compose({ ...delivery, ...changed.delivery }, { ...receiver, ...changed.receiver })
  const verify = (secret: string, { body, headers }: OutboundRequest) => new Webhook(secret).verify(body, headers)

  remoteChannelContract('webhooks', async () => ({
    channel, receiver, delivery,
    freshPart: ({ headers }) => headers['webhook-signature'] ?? '',
    pass: () => { nowMs += 1_000 },
  }))

  it('makes secrets of 24 to 64 random bytes, of which no two are the same', () => {
    expect(shown).toMatch(/^whsec_[A-Za-z0-9+/]+=*$/)
    expect(Buffer.from(shown.slice('whsec_'.length), 'base64')).toHaveLength(32)
    expect(secrets.make('r1').shown).not.toBe(shown)
  })

  it('G10: keeps secrets encrypted and bound to their receiver', () => {
    expect(sealed).not.toContain(shown.slice('whsec_'.length, -1))
    expect(() => secrets.open('r2', sealed)).toThrow(/authenticate/)
  })

  it('is verified with the secret, and refused with another, changed, or five minutes late', async () => {
    const request = await compose()
    expect(verify(shown, request)).toEqual(JSON.parse(request.body))
    expect(() => verify(secrets.make('r1').shown, request)).toThrow()
    expect(() => verify(shown, { ...request, body: request.body.replace('u1', 'u2') })).toThrow()
    expect(() => verify(shown, { ...request, headers: { ...request.headers, 'webhook-id': 'msg_other' } })).toThrow()
    nowMs -= 301_000
    const late = await compose()
    expect(() => verify(shown, late)).toThrow()
  })

  it('signs with both secrets while one is being rotated, space-delimited', async () => {
    const next = secrets.make('r1')
    const request = await compose({ receiver: { secrets: [next.sealed, sealed] } })
    expect(request.headers['webhook-signature']).toMatch(/^v1,[A-Za-z0-9+/]{43}= v1,[A-Za-z0-9+/]{43}=$/)
    verify(shown, request)
    verify(next.shown, request)
  })

  it('keeps id and body over attempts; timestamp and signature are the attempt’s', async () => {
    const first = await compose()
    nowMs += 3_600_000
    const second = await compose({ delivery: { id: '77' } })
    expect(second.body).toBe(first.body)
    expect(second.headers['webhook-id']).toBe(first.headers['webhook-id'])
    expect(Number(second.headers['webhook-timestamp']) - Number(first.headers['webhook-timestamp'])).toBe(3_600)
    expect(second.headers['webhook-signature']).not.toBe(first.headers['webhook-signature'])
  })

  it('gives each message an id of its own, without a full stop', async () => {
    const ids = new Set<string>()
    for (const changed of [{}, { delivery: { sessionId: 's2' } }, { delivery: { issuer: 'https://else' } }, { receiver: { id: 'r2', secrets: [secrets.make('r2').sealed] } }]) {
      ids.add((await compose(changed)).headers['webhook-id'] ?? '')
    }
    expect(ids.size).toBe(4)
    for (const id of ids) expect(id).toMatch(/^msg_[\w-]{22}$/)
  })

  it('says what happened, in the shape that the OpenAPI document shows', async () => {
    const { body } = await compose()
    expect(JSON.parse(body)).toEqual({
      type: 'session.terminated',
      timestamp: '2026-01-01T00:00:00.000Z',
      data: {
        sessionId: 's1', issuer: ISSUER, userId: 'u1', resourceOwner: 'o1', mode: 'revoke', reason: 'stolen laptop', sequence: '2',
        terminatedAt: '2026-01-01T00:00:00.000Z',
      },
    })
    const { body: plain } = await compose({ delivery: { termination: { ...delivery.termination, resourceOwner: 'o1', mode: 'logout', reason: null, sequence: '9007199254740993', terminatedAtMs: 0 } } })
    expect((JSON.parse(plain) as { data: object }).data).not.toHaveProperty('reason')
    expect(plain).toContain('"9007199254740993"')
    for (const text of [body, plain]) sessionTerminatedEvent.parse(JSON.parse(text))
  })

  it('stays under 20 kB, whatever is told', async () => {
    const id = fc.string({ unit: fc.constantFrom('a', '"', 'ü', '漢', '😀'), minLength: 1, maxLength: 100 }).map((text) => text.padEnd(200, '漢').slice(0, 200))
    await fc.assert(fc.asyncProperty(id, id, id, fc.string({ unit: 'binary', maxLength: 5_000 }), async (sessionId, sub, resourceOwner, reason) => {
      const request = await compose({
        delivery: { sessionId, sub, issuer: `https://${'i'.repeat(1_900)}`, termination: { resourceOwner, mode: 'logout', reason: `${'\u0001'.repeat(3_000)}${reason}`, sequence: '9223372036854775807', terminatedAtMs: 0 } },
      })
      expect(Buffer.byteLength(request.body)).toBeLessThan(20_000)
      verify(shown, request)
    }), { numRuns: 30 })
  })

  it('cannot be made without a secret, or once the event is gone', async () => {
    await expect(compose({ receiver: { secrets: [] } })).rejects.toThrow()
    await expect(compose({ delivery: { termination: null } })).rejects.toThrow()
  })

  describe('the answer', () => {
    const judged = (status: number) => channel.judge({ status, retryAfterMs: null, body: '' }).verdict
    const all = Array.from({ length: 400 }, (_, at) => at + 200)

    it('is success with any 2xx, and with nothing else', () => {
      expect(all.filter((status) => judged(status) === 'delivered')).toEqual(all.filter((status) => status < 300))
    })

    it('F48: says with 410 alone that the receiver is gone', () => {
      expect(all.filter((status) => judged(status) === 'receiver_gone')).toEqual([410])
    })

    it('is final with a redirect alone; all else may pass by itself', () => {
      expect(all.filter((status) => judged(status) === 'gave_up')).toEqual(all.filter((status) => status >= 300 && status < 400))
      for (const status of [400, 401, 404, 408, 429, 500, 502, 503, 504]) expect(judged(status)).toBe('retry')
    })
  })
})
