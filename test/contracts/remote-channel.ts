/**
 * What every remote channel must do, whichever standard it speaks; called by each channel's own suite.
 */
import { describe, expect, it } from 'vitest'
import type { Answer, ChannelDelivery, ChannelReceiver, OutboundRequest, RemoteChannel, Silence } from '../../src/channels/channel.ts'

const silences: Silence[] = [
  'timeout', 'connection_refused', 'connection_lost', 'name_not_resolved', 'tls_refused', 'address_refused', 'not_http', 'unreachable',
]

const status = (code: number, retryAfterMs: number | null = null): Answer => ({ status: code, retryAfterMs, body: '' })

interface Opened {
  readonly channel: RemoteChannel
  readonly receiver: ChannelReceiver
  readonly delivery: ChannelDelivery
  /** The part of a request that each attempt must have anew, and lets time pass where it is made from the time. */
  readonly freshPart: (request: OutboundRequest) => string
  readonly pass: () => void
}

/** @param open makes the channel, a receiver and a delivery of it. */
export const remoteChannelContract = (name: string, open: () => Promise<Opened>): void => {
  describe(`the contract of remote channels: ${name}`, () => {
    it('posts to the receiver’s URL as it was registered, its query kept', async () => {
      const { channel, receiver, delivery } = await open()
      const url = `${receiver.url}?tenant=a%20b&x=1`
      const request = await channel.compose(delivery, { ...receiver, url })
      expect(request.url).toBe(url)
      expect(request.method).toBe('POST')
      expect(request.headers['content-type']).toBeDefined()
      expect(request.body).not.toBe('')
    })

    it('makes the request anew for each attempt', async () => {
      const { channel, receiver, delivery, freshPart, pass } = await open()
      const first = await channel.compose(delivery, receiver)
      pass()
      const second = await channel.compose(delivery, receiver)
      expect(freshPart(first)).not.toBe('')
      expect(freshPart(second)).not.toBe(freshPart(first))
    })

    it('cannot be made to write a header or another field by what it tells of', async () => {
      const { channel, receiver, delivery } = await open()
      const evil = '\r\nx-evil: 1\r\n\r\n&logout_token=forged","type":"forged'
      const request = await channel.compose({ ...delivery, sid: evil, sub: evil, sessionId: evil, clientId: evil }, receiver)
      for (const [header, value] of Object.entries(request.headers)) expect(`${header}${value}`).not.toMatch(/[\r\n]/)
      expect(request.body).not.toMatch(/[\r\n]/)
      if (request.headers['content-type'] === 'application/json') expect((JSON.parse(request.body) as { type: string }).type).not.toContain('forged')
      else expect(request.body).not.toContain('forged')
    })

    it('gives every answer a meaning, the same each time', async () => {
      const { channel } = await open()
      for (let code = 200; code < 600; code += 1) {
        const verdict = channel.judge(status(code))
        expect(['delivered', 'retry', 'gave_up', 'receiver_gone']).toContain(verdict.verdict)
        expect(channel.judge(status(code))).toEqual(verdict)
      }
    })

    it('tries again where nothing came back, for whatever reason', async () => {
      const { channel } = await open()
      for (const silence of silences) expect(channel.judge({ silence, detail: '' })).toEqual({ verdict: 'retry', retryAfterMs: null })
    })

    it('takes a redirect for a failure', async () => {
      const { channel } = await open()
      for (const code of [300, 301, 302, 303, 304, 307, 308]) expect(channel.judge(status(code)).verdict).toBe('gave_up')
    })

    it('passes on how long a receiver asks to be left alone', async () => {
      const { channel } = await open()
      for (const code of [429, 503]) expect(channel.judge(status(code, 30_000))).toEqual({ verdict: 'retry', retryAfterMs: 30_000 })
    })
  })
}
