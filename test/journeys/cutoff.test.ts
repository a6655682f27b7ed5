/** The red button: one command, and what it names is dead to a service that runs; the attempts are counted. */
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { startIssuer } from '../harness/issuer.ts'
import type { TestIssuer } from '../harness/issuer.ts'
import { createDatabase } from '../harness/postgres.ts'
import type { TestDatabase } from '../harness/postgres.ts'
import { settingsFor, startProcess } from '../harness/processes.ts'
import type { ServiceProcess } from '../harness/processes.ts'

const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url))

let database: TestDatabase
let issuer: TestIssuer
let service: ServiceProcess
let settings: Record<string, string>
beforeAll(async () => {
  ;[database, issuer] = await Promise.all([createDatabase(), startIssuer()])
  settings = settingsFor({ databaseUrl: database.url, redisUrl: null, issuers: [issuer.entry()] })
  service = await startProcess(settings)
})
afterAll(async () => {
  await service.stop()
  await Promise.all([issuer.close(), database.drop()])
})

const call = async (method: string, path: string, as: string, body?: unknown) => {
  const options = { method, headers: { authorization: `Bearer ${as}` }, ...(body === undefined ? {} : { body: body as URLSearchParams | string }) }
  return fetch(`${service.apiUrl}${path}`, options)
}

it('kills every session and token of a user by one command, and tells how often they were still tried', async () => {
  // Of another user, and so out of the rule's reach.
  const operator = await issuer.token({ sub: 'operator', permissions: ['session.read', 'session.write'] })
  const theirs = await issuer.token({ sub: 'mallory', sid: 's1' })
  const flood = await issuer.token({ sub: 'mallory', permissions: ['session.delete'] })
  const body = JSON.stringify({ userId: 'mallory', resourceOwner: 'o1' })
  const introspect = async () => (await call('POST', '/v1/introspect', operator, new URLSearchParams({ token: theirs }))).json()
  expect((await call('PUT', '/v1/sessions/s1', operator, body)).status).toBe(201)
  expect((await call('GET', '/v2/sessions/s1', theirs)).status).toBe(200)
  expect(await introspect()).toMatchObject({ active: true, sid: 's1' })
  expect((await call('DELETE', '/v2/sessions/none', flood)).status).toBe(404)

  const set = ['cutoff', 'set', '--issuer', issuer.url, '--user', 'mallory', '--reason', 'INC-1']
  const { stdout } = await promisify(execFile)(process.execPath, [cli, ...set], { env: { PATH: process.env['PATH'], ...settings } })
  expect(stdout).toContain('It kills 1 registered sessions')
  const [, ruleId = ''] = stdout.split('  ')

  expect((await call('GET', '/v2/sessions/s1', theirs)).status).toBe(401)
  expect((await call('GET', '/v2/sessions/s1', operator)).status).toBe(404)
  expect(await introspect()).toEqual({ active: false })
  expect((await call('PUT', '/v1/sessions/s1', operator, body)).status).toBe(409)
  await expect.poll(async () => (await call('DELETE', '/v2/sessions/none', flood)).status, { timeout: 5_000 }).toBe(401)
  const attempts = async () => (await call('GET', `/v1/attempts?ruleId=${ruleId}`, operator)).json()
  await expect.poll(attempts, { timeout: 10_000 }).toMatchObject({ attempts: [{ issuer: issuer.url, count: expect.stringMatching(/^[3-9]$/) }] })
})
