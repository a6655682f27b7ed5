import { createServer } from 'node:http'
import type { Server, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { follow } from '../../src/cli/follow.ts'
import type { Progress } from '../../src/cli/progress-bar.ts'
import { createRemote } from '../../src/cli/remote.ts'

const id = '018f0000-0000-7000-8000-000000000000'

const event = (terminated: number, change: { state?: string; pending?: string } = {}): string => {
  const { state = 'running', pending = '0' } = change
  const metadata = {
    state, notifications: 'running', mode: 'revoke', reason: null, ticket: null, actor: { issuer: 'https://i', subject: 's' }, containment: 'rows',
    createTime: 't', cutoffTime: 't', committedTime: null, enforcedTime: null, acknowledgedTime: null,
    sessions: { expected: '10', expectedExact: true, matched: String(terminated), terminated: String(terminated) },
    deliveries: { total: '10', acknowledged: '0', pending, failed: '0', moot: '0' },
  }
  const data = { name: `revocations/${id}`, done: state !== 'running', metadata, rate: 5, deliveryRate: 1, secondsLeft: 1 }
  return `event: progress\ndata: ${JSON.stringify(data)}\n\n`
}

describe('watching a revocation', () => {
  let server: Server
  let answers: ((response: ServerResponse) => void)[]
  let shown: Progress[]
  beforeEach(async () => {
    answers = []
    shown = []
    server = createServer((request, response) => {
      expect(request.url).toBe(`/v1/revocations/${id}/progress`)
      const next = answers.shift()
      if (next === undefined) response.writeHead(404, { 'content-type': 'application/json' }).end('{"code":5,"message":"Revocation does not exist (CURFEW-rev04)"}')
      else next(response)
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  })
  afterEach(() => new Promise((resolve) => {
    server.close(resolve)
    server.closeAllConnections()
  }))

  const says = (...events: string[]) => (response: ServerResponse) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    for (const text of events) response.write(text)
  }
  const watch = (until: 'ended' | 'told') =>
    follow(createRemote({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, token: 't' }), { id, until, show: (progress) => shown.push(progress) })
  const seen = () => shown.map(({ revocation }) => revocation.metadata.sessions.terminated)

  it('ends when its sessions have ended, though receivers are still being told', async () => {
    answers.push(says(event(1), event(10, { state: 'done', pending: '7' })))
    expect((await watch('ended')).metadata).toMatchObject({ state: 'done', deliveries: { pending: 7 } })
    expect(seen()).toEqual([1, 10])
    expect(shown[0]).toMatchObject({ rate: 5, secondsLeft: 1 })
  })

  it('goes on until everybody is told, where that is asked for', async () => {
    answers.push(says(event(10, { state: 'done', pending: '7' }), event(10, { state: 'done' }), 'event: done\ndata: {}\n\n'))
    expect((await watch('told')).metadata.deliveries.pending).toBe(0)
    expect(shown).toHaveLength(2)
  })

  it('ends when it is cancelled', async () => {
    answers.push(says(event(4, { state: 'cancelled' })))
    expect((await watch('ended')).metadata.state).toBe('cancelled')
  })

  it('comes back after a lost connection, an answer that was cut off, and a Curfew that starts anew', async () => {
    answers.push(
      (response) => {
        says(event(1))(response)
        response.write('event: progress\ndata: {"na', () => response.destroy())
      },
      (response) => void response.writeHead(503, { 'retry-after': '0' }).end(),
      (response) => void response.destroy(),
      says(':\n\n', event(2), 'event: something\ndata: new\n\n', event(10, { state: 'done' })),
    )
    expect((await watch('ended')).metadata.state).toBe('done')
    expect(seen()).toEqual([1, 2, 10])
  })

  it('says at once that there is nothing to be seen', async () => {
    await expect(watch('ended')).rejects.toThrow('Revocation does not exist (CURFEW-rev04).')
  })
})
