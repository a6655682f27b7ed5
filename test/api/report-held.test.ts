import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { TestApi } from './api.ts'
import { startReportRig } from './report-rig.ts'
import type { ReportRig } from './report-rig.ts'

let api: TestApi
let rig: ReportRig
beforeAll(async () => {
  rig = await startReportRig()
  api = rig.api
})
afterAll(() => rig.close())

const ask: ReportRig['ask'] = (...asked) => rig.ask(...asked)
const ended: ReportRig['ended'] = (change) => rig.ended(change)

describe('a report that takes its time', () => {
  it('is written for a few readers at once, and whoever leaves makes room', async () => {
    const { id } = await ended()
    const { port, responder } = rig
    const begin = () => new Promise<{ socket: Socket; status: string }>((resolve) => {
      const socket = connect(port, '127.0.0.1')
      socket.write(`GET /v1/revocations/${id}/report HTTP/1.1\r\nhost: x\r\nauthorization: ${responder}\r\n\r\n`)
      socket.once('data', (chunk: Buffer) => resolve({ socket, status: chunk.toString().slice(9, 12) }))
    })
    const holder = await api.database.sql.connect()
    try {
      // Whoever reads comes to the sessions, and no further.
      await holder.query('BEGIN; LOCK TABLE session_events IN ACCESS EXCLUSIVE MODE')
      const held = await Promise.all([begin(), begin(), begin(), begin()])
      expect(held.map(({ status }) => status)).toEqual(['200', '200', '200', '200'])
      expect((await ask(id)).statusCode).toBe(503)
      for (const { socket } of held) socket.destroy()
      await expect.poll(async () => (await begin()).status).toBe('200')
    } finally {
      await holder.query('ROLLBACK')
      holder.release()
    }
  })

  it('lacks its signature where it breaks off, and the log says why', async () => {
    const { id } = await ended()
    const url = `http://127.0.0.1:${rig.port}/v1/revocations/${id}/report?format=ndjson`
    const holder = await api.database.sql.connect()
    try {
      await holder.query('BEGIN; LOCK TABLE session_events IN ACCESS EXCLUSIVE MODE')
      const answer = await fetch(url, { headers: { authorization: rig.responder } })
      await expect(answer.text()).rejects.toThrow('terminated')
      expect(api.logged.some((line) => line.includes('"report.broke_off"'))).toBe(true)
    } finally {
      await holder.query('ROLLBACK')
      holder.release()
    }
  })
})
