import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { gzipSync } from 'node:zlib'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { OutboundRequest } from '../../src/channels/channel.ts'
import { createAddressPolicy } from '../../src/delivery/address.ts'
import { createConnect } from '../../src/delivery/door.ts'
import { createDoor } from '../../src/delivery/http.ts'
import type { Door } from '../../src/delivery/http.ts'
import { createResolve } from '../../src/delivery/resolve.ts'
import { certificates, testAuthority } from '../harness/certificates.ts'
import { startNameServer } from '../harness/name-server.ts'
import type { NameServer } from '../harness/name-server.ts'
import { answer, dripBody, dripHeaders, endless, hang, reset, startReceiver } from '../harness/receiver.ts'
import type { TestReceiver } from '../harness/receiver.ts'

const TIMEOUT_MS = 700

describe('the door out', () => {
  const closing: (() => Promise<unknown>)[] = []
  let receiver: TestReceiver
  let names: NameServer
  let door: Door

  const startTestReceiver: typeof startReceiver = async (tls) => {
    const started = await startReceiver(tls)
    closing.push(started.close)
    return started
  }
  const openDoor = (allowed: readonly string[] = ['127.0.0.0/8'], timeoutMs = TIMEOUT_MS): Door => {
    const opened = createDoor({
      connect: createConnect({
        policy: createAddressPolicy(allowed), ca: testAuthority,
        resolve: createResolve({ servers: [names.address], system: () => Promise.reject(new Error('unknown')) }),
      }),
      timeoutMs,
      now: Date.now,
    })
    closing.push(opened.close)
    return opened
  }
  const post = (url: string): OutboundRequest => ({ url, method: 'POST', headers: { 'content-type': 'text/plain' }, body: 'hello' })
  const named = (name: string, port = receiver.port): string => `http://${name}:${port}/x`

  beforeEach(async () => {
    names = await startNameServer()
    closing.push(names.close)
    receiver = await startTestReceiver()
    door = openDoor()
  })
  afterEach(async () => {
    await Promise.all(closing.splice(0).toReversed().map((close) => close()))
  })

  it('posts the body, keeps the query and asks for an answer that is not compressed', async () => {
    receiver.always(answer(400, { body: '{"error":"invalid_request"}', headers: { 'retry-after': '7' } }))
    expect(await door.send(post(`http://127.0.0.1:${receiver.port}/logout?tenant=a&x=%20y`))).toEqual({
      status: 400, retryAfterMs: 7_000, body: '{"error":"invalid_request"}',
    })
    expect(receiver.requests[0]).toMatchObject({
      method: 'POST', path: '/logout?tenant=a&x=%20y', body: 'hello', headers: { 'accept-encoding': 'identity', 'content-type': 'text/plain', 'content-length': '5' },
    })
  })

  it('uses a connection again', async () => {
    // One answer's end and the next request can cross, so a second connection may come to be; never one for each.
    const ports = new Set<unknown>()
    receiver.always((response) => {
      ports.add(response.socket?.remotePort)
      response.writeHead(204).end()
    })
    for (let at = 0; at < 20; at += 1) await door.send(post(receiver.url))
    expect(ports.size).toBeLessThanOrEqual(2)
  })

  it('F41: ends an attempt at its time limit, however the receiver drips', async () => {
    for (const hostile of [hang, dripHeaders]) {
      receiver.script(hostile)
      const startedMs = Date.now()
      expect(await door.send(post(receiver.url))).toMatchObject({ silence: 'timeout' })
      expect(Date.now() - startedMs).toBeLessThan(TIMEOUT_MS + 1_000)
    }
    await expect.poll(() => receiver.inFlight.now).toBe(0)
  })

  it('F41: takes a status as the answer where its body never ends', async () => {
    receiver.script(dripBody(400))
    expect(await door.send(post(receiver.url))).toMatchObject({ status: 400, body: expect.stringMatching(/^b+$/) as string })
    await expect.poll(() => receiver.inFlight.now).toBe(0)
  })

  it.each([301, 302, 303, 307, 308])('F42: does not follow a %i, and the internal listener sees nothing', async (status) => {
    const internal = await startTestReceiver()
    receiver.script(answer(status, { headers: { location: internal.url } }))
    expect(await door.send(post(receiver.url))).toMatchObject({ status })
    expect(internal.requests).toEqual([])
  })

  it('F43: reads at most 16 KiB of an endless answer and cuts the connection', async () => {
    const written = { bytes: 0 }
    receiver.script(endless(500, written))
    const before = process.memoryUsage().rss
    const answered = await door.send(post(receiver.url))
    expect(answered).toMatchObject({ status: 500 })
    expect('body' in answered && answered.body.length).toBe(16 * 1_024)
    await expect.poll(() => receiver.inFlight.now).toBe(0)
    expect(process.memoryUsage().rss - before).toBeLessThan(20 * 1_024 * 1_024)
  })

  it('F43: does not unpack a compressed answer', async () => {
    const bomb = gzipSync(Buffer.alloc(8 * 1_024 * 1_024))
    receiver.script((response) => response.writeHead(400, { 'content-encoding': 'gzip' }).end(bomb))
    const answered = await door.send(post(receiver.url))
    expect('body' in answered && answered.body.length).toBeLessThanOrEqual(16 * 1_024)
  })

  it('refuses headers without end', async () => {
    receiver.script((response) => {
      response.socket?.on('error', () => {})
      response.socket?.write(`HTTP/1.1 200 OK\r\nx: ${'a'.repeat(100_000)}\r\n`)
    })
    expect(await door.send(post(receiver.url))).toMatchObject({ silence: 'not_http' })
  })

  it('F44: a reset after the request is of unknown outcome', async () => {
    receiver.script(reset)
    expect(await door.send(post(receiver.url))).toMatchObject({ silence: 'connection_lost' })
    expect(await door.send(post(receiver.url))).toMatchObject({ status: 200 })
  })

  it('says that nobody listens', async () => {
    await receiver.close()
    expect(await door.send(post(receiver.url))).toMatchObject({ silence: 'connection_refused' })
  })

  it('F45: refuses an expired, a foreign and a wrongly named certificate, and does not fall back to plain text', async () => {
    const good = await startTestReceiver(certificates.good)
    expect(await door.send(post(good.url))).toMatchObject({ status: 200 })
    for (const bad of [certificates.expired, certificates.wrongName]) {
      const server = await startTestReceiver(bad)
      expect(await door.send(post(server.url))).toMatchObject({ silence: 'tls_refused' })
      expect(server.requests).toEqual([])
    }
    const withoutAuthority = createDoor({
      connect: createConnect({ policy: createAddressPolicy(['127.0.0.0/8']), resolve: createResolve() }), timeoutMs: TIMEOUT_MS, now: Date.now,
    })
    closing.push(withoutAuthority.close)
    expect(await withoutAuthority.send(post(good.url))).toMatchObject({ silence: 'tls_refused' })
    expect(await door.send(post(receiver.url.replace('http:', 'https:')))).toMatchObject({ silence: 'tls_refused' })
  })

  it('S23: reaches no address that it must not, written as a literal', async () => {
    const strict = openDoor([])
    for (const host of ['127.0.0.1', '2130706433', '0x7f.1', '0177.0.0.1', '127.1', '[::ffff:127.0.0.1]', '[::1]', '0.0.0.0', '169.254.169.254', '[64:ff9b::7f00:1]']) {
      for (const scheme of ['http', 'https']) {
        expect(await strict.send(post(`${scheme}://${host}:${receiver.port}/`))).toMatchObject({ silence: 'address_refused' })
      }
    }
    expect(receiver.requests).toEqual([])
  })

  it('S23: reaches no address that it must not, hidden behind a name', async () => {
    const strict = openDoor(['10.0.0.0/8'])
    names.set('private.test', ['127.0.0.1'])
    names.set('mixed.test', ['8.8.8.8', '127.0.0.1'])
    names.set('metadata.test', ['169.254.169.254'])
    names.set('empty.test', [])
    for (const name of ['private.test', 'mixed.test', 'metadata.test']) {
      expect(await strict.send(post(named(name)))).toMatchObject({ silence: 'address_refused' })
      expect(await strict.send(post(named(name).replace('http:', 'https:')))).toMatchObject({ silence: 'address_refused' })
    }
    expect(receiver.requests).toEqual([])
  })

  it('S23: a name that changes its address between two attempts is checked each time', async () => {
    const rebinding = openDoor(['127.0.0.1/32'])
    names.set('rebind.test', ['127.0.0.1'])
    expect(await rebinding.send(post(named('rebind.test')))).toMatchObject({ status: 200 })
    names.set('rebind.test', ['127.0.0.2'])
    receiver.always((response) => response.writeHead(200, { connection: 'close' }).end())
    await rebinding.send(post(named('rebind.test')))
    await expect.poll(async () => rebinding.send(post(named('rebind.test')))).toMatchObject({ silence: 'address_refused' })
  })

  it('tells an allowed private network by name, over plain http', async () => {
    names.set('internal.test', ['127.0.0.1'])
    expect(await door.send(post(named('internal.test')))).toMatchObject({ status: 200 })
    expect(receiver.requests[0]?.headers.host).toBe(`internal.test:${receiver.port}`)
  })

  it('F46: an unknown name, a failing and a silent name server end within the time limit', async () => {
    names.set('failing.test', 'SERVFAIL')
    names.set('silent.test', 'silence')
    for (const name of ['unknown.test', 'failing.test']) expect(await door.send(post(named(name)))).toMatchObject({ silence: 'name_not_resolved' })
    expect(await door.send(post(named('unknown.test')))).toMatchObject({ detail: expect.stringMatching(/^The name was not resolved \(\w+\)$/) as string })
    const startedMs = Date.now()
    expect(await door.send(post(named('silent.test')))).toMatchObject({ silence: 'timeout' })
    expect(Date.now() - startedMs).toBeLessThan(TIMEOUT_MS + 1_000)
  })

  it('F46: names that hang hold up no others', async () => {
    names.set('good.test', ['127.0.0.1'])
    names.set('hangs.test', 'silence')
    const patient = openDoor(['127.0.0.0/8'], 5_000)
    const hanging = Array.from({ length: 50 }, () => patient.send(post(named('hangs.test'))))
    const startedMs = Date.now()
    for (let at = 0; at < 5; at += 1) expect(await patient.send(post(named('good.test')))).toMatchObject({ status: 200 })
    expect(Date.now() - startedMs).toBeLessThan(1_000)
    await Promise.all(hanging)
  })

  it('says that what answers does not speak HTTP', async () => {
    const chatter = createServer((socket) => {
      socket.on('error', () => {})
      socket.resume().end('SSH-2.0-OpenSSH_9.2\r\n')
    })
    await new Promise<void>((resolve) => chatter.listen(0, '127.0.0.1', resolve))
    closing.push(() => new Promise((resolve) => chatter.close(resolve)))
    const { port } = chatter.address() as AddressInfo
    expect(await door.send(post(`http://127.0.0.1:${port}/`))).toMatchObject({ silence: 'not_http' })
  })

  it('takes no proxy from the environment', async () => {
    const proxy = await startTestReceiver()
    process.env['HTTP_PROXY'] = process.env['http_proxy'] = `http://127.0.0.1:${proxy.port}`
    try {
      await openDoor().send(post(receiver.url))
    } finally {
      delete process.env['HTTP_PROXY']
      delete process.env['http_proxy']
    }
    expect(proxy.requests).toEqual([])
    expect(receiver.requests).toHaveLength(1)
  })
})
