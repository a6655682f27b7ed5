/** `curfew revocations`: what was revoked, how far it is, steering it, and its report. Through the API of a Curfew elsewhere. */
import { createWriteStream } from 'node:fs'
import { rename, rm } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { InvalidArgumentError, Option } from 'commander'
import type { Command } from 'commander'
import { z } from 'zod'
import { reportFormats } from '../client/report.ts'
import type { ReportFormat } from '../client/report.ts'
import { cannotBe } from './files.ts'
import { described, listed, readOperation } from './operation.ts'
import { RemoteError } from './remote.ts'
import { watchToEnd } from './revoke.ts'
import type { At, Run } from './revoke.ts'

/** A page of the list; the largest that the API gives. */
const PAGE = 100

const page = z.object({ revocations: z.array(z.unknown()), nextPageToken: z.string().optional() })

const list = async ({ remote, terminal }: At, { state, limit }: { state?: string; limit: number }): Promise<number> => {
  let left = limit
  for (let token: string | undefined; left > 0; ) {
    const query = new URLSearchParams({ pageSize: String(Math.min(left, PAGE)), ...(state === undefined ? {} : { state }), ...(token === undefined ? {} : { pageToken: token }) })
    const answer = page.safeParse(await remote.call({ path: `/v1/revocations?${query.toString()}` }))
    if (!answer.success) throw new RemoteError('The answer is not a list of revocations; is CURFEW_URL right?', null, answer.error)
    for (const one of answer.data.revocations) terminal.say(listed(readOperation(one)))
    // A page may be short, or empty, and have a next one.
    left -= answer.data.revocations.length
    token = answer.data.nextPageToken
    if (token === undefined) break
  }
  if (left === limit) terminal.say('No revocations.')
  return 0
}

const show = async ({ remote, terminal }: At, id: string): Promise<number> => {
  for (const line of described(readOperation(await remote.call({ path: `/v1/revocations/${id}` })))) terminal.say(line)
  return 0
}

const steer = async ({ remote, terminal }: At, { verb, id, only }: { verb: string; id: string; only?: string }): Promise<number> => {
  const body = only === undefined ? {} : { only }
  for (const line of described(readOperation(await remote.call({ method: 'POST', path: `/v1/revocations/${id}:${verb}`, body })))) terminal.say(line)
  return 0
}

const redelivered = z.object({ redelivered: z.number(), more: z.boolean().default(false) })

const redeliver = async ({ remote, terminal }: At, { id, state }: { id: string; state: string }): Promise<number> => {
  for (let total = 0; ; ) {
    const answer = redelivered.safeParse(await remote.call({ method: 'POST', path: `/v1/revocations/${id}:redeliver`, body: { state } }))
    if (!answer.success) throw new RemoteError('The answer cannot be read; is CURFEW_URL right?', null, answer.error)
    total += answer.data.redelivered
    if (answer.data.more && answer.data.redelivered > 0) continue
    terminal.say(`${total} deliveries are sent again.`)
    return 0
  }
}

/** Writes to a file that appears whole or not at all; without one, to standard output. */
const report = async ({ remote, terminal }: At, { id, format, output }: { id: string; format: ReportFormat; output?: string }): Promise<number> => {
  const body = await remote.open({ path: `/v1/revocations/${id}/report?format=${format}`, accept: '*/*' })
  const text = Readable.fromWeb(body as Parameters<typeof Readable.fromWeb>[0])
  if (output === undefined) {
    await pipeline(text, process.stdout, { end: false }).catch(explain)
    return 0
  }
  const making = `${output}.part`
  try {
    await pipeline(text, createWriteStream(making, { mode: 0o600 })).catch(explain)
    await rename(making, output)
  } catch (error) {
    cannotBe('written', output)(error)
  } finally {
    await rm(making, { force: true })
  }
  terminal.say(`${output} is written. To check it: npx curfew verify-report ${output}`)
  return 0
}

/** What the file system says speaks for itself. */
const explain = (error: unknown): never => {
  if (error instanceof Error && 'syscall' in error) throw error
  throw new RemoteError('The report broke off. Ask again.', null, error)
}

/** As `revocations/{id}` or the id alone. */
const revocationId = (text: string): string => {
  const id = text.replace(/^revocations\//, '')
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(id)) throw new InvalidArgumentError('It must be the id of a revocation.')
  return id.toLowerCase()
}

const limit = (text: string): number => {
  if (!/^[1-9]\d{0,5}$/.test(text)) throw new InvalidArgumentError('It must be a whole number from 1.')
  return Number(text)
}

/** Adds the commands. */
export const addRevocationsCommands = (revocations: Command, run: Run): void => {
  const id = ['<id>', 'the revocation', revocationId] as const
  revocations.command('list').description('list them, newest first')
    .addOption(new Option('--state <state>', 'only those').choices(['running', 'paused', 'cancelled', 'done']))
    .option('--limit <number>', 'so many', limit, 20)
    .action((options: { state?: string; limit: number }) => run((at) => list(at, options)))
  revocations.command('show').description('show one').argument(...id)
    .action((named: string) => run((at) => show(at, named)))
  revocations.command('watch').description('watch one until its sessions are ended').argument(...id)
    .option('--until-told', 'also until everybody is told', false)
    .action((named: string, { untilTold }: { untilTold: boolean }) =>
      run(async (at) => (await watchToEnd(at, { id: named, until: untilTold ? 'told' : 'ended' })) ?? 1))
  const verbs = { pause: 'hold it where it is', resume: 'go on with it', cancel: 'stop it for good; what has ended stays ended' }
  for (const [verb, says] of Object.entries(verbs)) {
    revocations.command(verb).description(says).argument(...id)
      .addOption(new Option('--only <part>', 'only this part of it').choices(['terminations', 'notifications']))
      .action((named: string, { only }: { only?: string }) => run((at) => steer(at, { verb, id: named, ...(only === undefined ? {} : { only }) })))
  }
  revocations.command('report').description('what it did, signed').argument(...id)
    .addOption(new Option('--format <format>', 'csv and ndjson list every session').choices([...reportFormats]).default('json'))
    .option('--output <file>', 'where to; else to standard output')
    .action((named: string, options: { format: ReportFormat; output?: string }) => run((at) => report(at, { id: named, ...options })))
  revocations.command('redeliver').description('send again what receivers were not told').argument(...id)
    .addOption(new Option('--state <state>', 'which of its deliveries').choices(['failed', 'moot']).default('failed'))
    .action((named: string, { state }: { state: string }) => run((at) => redeliver(at, { id: named, state })))
}
