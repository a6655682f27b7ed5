import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { Server, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command } from 'commander'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { addRevocationsCommands } from '../../src/cli/revocations.ts'
import { createRemote } from '../../src/cli/remote.ts'
import { createScreen } from './screen.ts'

const id = '018f0000-0000-7000-8000-000000000000'

const revocation = (reason: string) => ({
  name: `revocations/${id}`,
  done: true,
  metadata: {
    state: 'done', notifications: 'running', mode: 'revoke', reason, ticket: null, actor: { issuer: 'https://i', subject: 's' }, containment: 'rows',
    createTime: 't', cutoffTime: 't', committedTime: 't', enforcedTime: 't', acknowledgedTime: null,
    sessions: { expected: '1', expectedExact: true, matched: '1', terminated: '1' },
    deliveries: { total: '0', acknowledged: '0', pending: '0', failed: '0', moot: '0' },
  },
})

describe('curfew revocations', () => {
  let server: Server
  let folder: string
  let asked: string[]
  let answers: ((response: ServerResponse) => void)[]
  beforeEach(async () => {
    asked = []
    answers = []
    folder = await mkdtemp(join(tmpdir(), 'curfew-test-revocations-'))
    server = createServer((request, response) => {
      asked.push(`${request.method ?? ''} ${request.url ?? ''}`)
      request.resume().on('end', () => answers.shift()?.(response))
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  })
  afterEach(async () => {
    await new Promise((resolve) => {
      server.close(resolve)
      server.closeAllConnections()
    })
    await rm(folder, { recursive: true })
  })

  const json = (value: unknown) => (response: ServerResponse) => void response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value))
  /** What was said. */
  const run = async (...parameters: string[]): Promise<string> => {
    const terminal = createScreen(null)
    const remote = createRemote({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, token: 't' })
    const command = new Command().exitOverride().configureOutput({ writeErr: () => {} })
    addRevocationsCommands(command, async (use) => void (await use({ remote, terminal })))
    for (const one of command.commands) one.exitOverride().configureOutput({ writeErr: () => {} })
    await command.parseAsync(parameters, { from: 'user' })
    return terminal.written()
  }

  it('lists page by page, also past an empty one, and no more than is asked for', async () => {
    answers.push(json({ revocations: [], nextPageToken: 'a' }), json({ revocations: [revocation('x'), revocation('y')], nextPageToken: 'b' }), json({ revocations: [revocation('z')], nextPageToken: 'c' }))
    const lines = (await run('list', '--limit', '3', '--state', 'done')).trimEnd().split('\n')
    expect(lines.map((line) => line.split('  ').at(-1))).toEqual(['reason=x', 'reason=y', 'reason=z'])
    expect(asked).toEqual([
      'GET /v1/revocations?pageSize=3&state=done', 'GET /v1/revocations?pageSize=3&state=done&pageToken=a', 'GET /v1/revocations?pageSize=1&state=done&pageToken=b',
    ])
    answers.push(json({ revocations: [] }))
    expect(await run('list')).toBe('No revocations.\n')
  })

  it('shows nobody’s words as anything but words', async () => {
    answers.push(json(revocation('\u001b[2Jgone\nstate        running')))
    expect(await run('show', id)).toContain('reason        ?[2Jgone?state        running\n')
  })

  it('sends again until nothing is left to be sent again', async () => {
    answers.push(json({ redelivered: 100_000, more: true }), json({ redelivered: 17, more: false }))
    expect(await run('redeliver', `revocations/${id}`)).toBe('100017 deliveries are sent again.\n')
    expect(asked).toEqual(Array.from({ length: 2 }, () => `POST /v1/revocations/${id}:redeliver`))
  })

  it('leaves no file where a report breaks off', async () => {
    const output = join(folder, 'report.json')
    answers.push((response) => void response.write('{"report":', () => response.destroy()))
    await expect(run('report', id, '--output', output)).rejects.toThrow('The report broke off. Ask again.')
    expect([existsSync(output), existsSync(`${output}.part`)]).toEqual([false, false])
    answers.push((response) => void response.end('{}'))
    expect(await run('report', id, '--output', output)).toContain(`npx curfew verify-report ${output}`)
    expect(await readFile(output, 'utf8')).toBe('{}')
    answers.push((response) => void response.end('{}'))
    await expect(run('report', id, '--output', join(folder, 'none', 'report'))).rejects.toThrow('report cannot be written: there is no such folder')
  })

  it('asks nothing about what is no id', async () => {
    for (const wrong of ['x', '../sessions', `${id}/report`]) await expect(run('show', wrong)).rejects.toThrow('It must be the id of a revocation.')
    expect(asked).toEqual([])
  })

  it('refuses an answer that is no revocation', async () => {
    answers.push(json({ name: 'something' }))
    await expect(run('show', id)).rejects.toThrow('is not a revocation')
  })
})
