/** SIGTERM while someone holds a request up: one who never finishes sending it, and a row that stays locked. */
import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { SHUTDOWN_TIMEOUT_MS, startCluster, stopInTime } from './cluster.ts'
import type { Cluster } from './cluster.ts'

describe('SIGTERM', () => {
  let cluster: Cluster
  beforeAll(async () => { cluster = await startCluster({ redis: null, settings: { SHUTDOWN_TIMEOUT: String(SHUTDOWN_TIMEOUT_MS) } }) })
  afterAll(() => cluster.stop())

  it('with requests that never arrive whole: ends with code 0, and closes what it has opened', async () => {
    const api = await cluster.start('api')
    const { hostname, port } = new URL(api.apiUrl)
    const socket = connect(Number(port), hostname)
    socket.on('error', () => {})
    socket.write(`DELETE /v2/sessions/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${cluster.token}\r\nContent-Length: 100\r\n\r\n{`)
    const nobody = connect(Number(port), hostname)
    nobody.on('error', () => {})
    nobody.write('DELETE /v2/sess')
    // Answered after those two were accepted.
    await vi.waitFor(async () => expect((await fetch(`${api.apiUrl}/healthz`, { headers: { connection: 'close' } })).status).toBe(200), { timeout: 10_000 })
    expect(await stopInTime(api)).toBe(0)
    expect(api.lines.at(-1)).toContain('"inTime":true')
  })

  it('with a row that stays locked: whoever waits for it is told that its outcome is open, and it ends with code 0', async () => {
    const api = await cluster.start('api')
    const [id = ''] = await cluster.live(1)
    const lock = await cluster.database.sql.connect()
    await lock.query('BEGIN')
    await lock.query('SELECT FROM sessions WHERE id = $1 FOR UPDATE', [id])
    const answer = cluster.end(api, id)
    await vi.waitFor(async () => expect(await cluster.metric(api, 'curfew_waiting')).toBe(1), { timeout: 5_000, interval: 20 })
    expect(await stopInTime(api)).toBe(0)
    expect(await answer).toMatchObject({ status: 504, body: { code: 4 } })
    await lock.query('ROLLBACK')
    lock.release()
  })
})
