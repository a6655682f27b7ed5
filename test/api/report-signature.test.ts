import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { verifyReport } from '../../src/cli/verify-report.ts'
import { answer, startReceiver } from '../harness/receiver.ts'
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
const verify: ReportRig['verify'] = (text) => rig.verify(text)

describe('a report’s signature', () => {
  it.each(['json', 'csv', 'ndjson'])('is good for what was signed, and for nothing else: %s', async (format) => {
    const { id } = await ended()
    const { body } = await ask(id, { format })
    const [first, ...said] = await verify(body)
    expect(first).toMatch(/^Verified: /)
    expect(said.join('\n')).toContain(`revocations/${id}`)
    expect(said.join('\n')).toContain('done, final: 2 sessions ended, 0 remaining')
    await expect(verify(body.replace('stolen laptops', 'stolen laptop'))).rejects.toThrow('It was changed after it was signed')
    await expect(verify(body.replace(/"signature":"[^"]*"|^signature,.*$/m, ''))).rejects.toThrow('ends without a signature')
    await expect(verify(body.slice(0, body.length / 2))).rejects.toThrow('ends without a signature')
    await expect(verify(body.replace(/(eyJ[\w-]+\.[\w-]+)\.[\w-]+/, '$1.AAAA'))).rejects.toThrow('Its signature is not good')
    const other = await ended()
    const signature = /eyJ[\w-]+\.[\w-]+\.[\w-]+/
    const borrowed = signature.exec((await ask(other.id, { format })).body)?.[0] ?? ''
    await expect(verify(body.replace(signature, borrowed))).rejects.toThrow('It was changed after it was signed')
  })

  it('outlives another layout of the JSON document', async () => {
    const { id } = await ended()
    const { report, signature } = (await ask(id)).json() as { report: Record<string, unknown>; signature: string }
    const turned = Object.fromEntries(Object.entries(report).toReversed())
    expect((await verify(JSON.stringify({ signature, report: turned }, null, 2)))[0]).toMatch(/^Verified/)
  })

  it('covers the very bytes of NDJSON, so that anybody can check it', async () => {
    const { id } = await ended()
    const { body } = await ask(id, { format: 'ndjson' })
    const lines = body.split('\n')
    const { signature } = JSON.parse(lines.at(-2) ?? '') as { signature: string }
    const claims = JSON.parse(Buffer.from(signature.split('.')[1] ?? '', 'base64url').toString()) as { report: { sha256: string } }
    const signed = lines.slice(0, -2).map((line) => `${line}\n`).join('')
    const digest = await crypto.subtle.digest('SHA-256', Buffer.from(signed))
    expect(claims.report.sha256).toBe(Buffer.from(digest).toString('hex'))
  })

  it('is broken where a document says a thing twice or more than it was signed with', async () => {
    const { id } = await ended()
    const { body } = await ask(id)
    await expect(verify(body.replace('"state":"done"', '"state":"cancelled","state":"done"'))).rejects.toThrow('says a thing twice')
    await expect(verify(body.replace('{"report":', '{"report":{"state":"cancelled"},"report":'))).rejects.toThrow('says a thing twice')
    await expect(verify(body.replace('{"report":', '{"report":{"st\\u0061te":"cancelled"},"r\\u0065port":'))).rejects.toThrow('says a thing twice')
    await expect(verify(body.replace(/\}\s*$/, ',"note":"all receivers were told"}'))).rejects.toThrow('more than a report')
    expect((await verify(JSON.stringify(JSON.parse(body), null, 2)))[0]).toMatch(/^Verified/)
  })

  it('is nobody else’s: a logout token is no report, and a report no token', async () => {
    const { id } = await ended()
    const { body } = await ask(id, { format: 'ndjson' })
    const signature = /eyJ[\w-]+\.[\w-]+\.[\w-]+/
    const token = await api.issuer.token({ sub: `revocations/${id}` })
    await expect(verify(body.replace(signature, token))).rejects.toThrow(/No key that you trust|not good/)
    const asToken = signature.exec(body)?.[0] ?? ''
    expect((await ask(id, { as: `Bearer ${asToken}` })).statusCode).toBe(401)
  })

  it('is checked with the keys that the reader trusts alone', async () => {
    const { id } = await ended()
    const file = await rig.keep((await ask(id)).body)
    await expect(verifyReport(file, { curfewUrl: null })).rejects.toThrow('Say whose keys to trust')
    await expect(verifyReport(file, { jwks: rig.jwks, issuer: 'https://else', curfewUrl: null })).rejects.toThrow('not of https://else')
    await writeFile(join(rig.folder, 'none.json'), '{"keys":[]}')
    await expect(verifyReport(file, { jwks: join(rig.folder, 'none.json'), curfewUrl: null })).rejects.toThrow('No key that you trust')
    await writeFile(join(rig.folder, 'none.json'), 'no keys')
    await expect(verifyReport(file, { jwks: join(rig.folder, 'none.json'), curfewUrl: null })).rejects.toThrow('is no JWKS')
    await expect(verifyReport(join(rig.folder, 'none.json'), { jwks: rig.jwks, curfewUrl: null })).rejects.toThrow('no report')
    const moved = await startReceiver()
    moved.always(answer(302, { headers: { location: moved.url } }))
    await expect(verifyReport(file, { jwks: moved.url, curfewUrl: null })).rejects.toThrow('answered 302; no key can be found there')
    expect(moved.requests).toHaveLength(1)
    await moved.close()
    const url = `http://127.0.0.1:${rig.port}`
    expect((await verifyReport(file, { curfewUrl: url, issuer: api.issuer.url }))[0]).toMatch(/^Verified/)
    expect(await readFile(file, 'utf8')).toContain('signature')
  })
})
