/**
 * `curfew revoke`: shows what would end, asks for the number to be typed, and only then has it ended. The preview's token
 * goes with the request, so what ends is what was shown, or nothing.
 *
 * One run asks under one `Idempotency-Key`: however often its request is repeated on the way, it is one revocation.
 */
import { randomUUID } from 'node:crypto'
import { InvalidArgumentError, Option } from 'commander'
import type { Command } from 'commander'
import { ConfigError } from '../config.ts'
import { readText } from './files.ts'
import { follow, watchLater } from './follow.ts'
import { described, idOf, readOperation } from './operation.ts'
import { previewLines, readPreview, sizeOf } from './preview.ts'
import { createProgressBar } from './progress-bar.ts'
import type { Remote } from './remote.ts'
import { another, time } from './texts.ts'
import type { Terminal } from './terminal.ts'

/** Where a command works, and who runs it. */
export interface At {
  readonly remote: Remote
  readonly terminal: Terminal
}

/** Runs a command at the Curfew that the environment names; its result is the exit code. */
export type Run = (use: (at: At) => Promise<number>) => Promise<void>

export interface RevokeOptions {
  readonly org: readonly string[]
  readonly user: readonly string[]
  readonly session: readonly string[]
  readonly sessionsFrom?: string
  readonly client: readonly string[]
  readonly fingerprint: readonly string[]
  readonly ip: readonly string[]
  readonly bornBefore?: string
  readonly bornAfter?: string
  readonly includeExpired: boolean
  readonly all: boolean
  readonly excludeUser: readonly string[]
  readonly excludeSession: readonly string[]
  readonly mode: 'revoke' | 'logout'
  readonly reason: string
  readonly ticket?: string
  readonly deliveriesPerSecond?: number
  readonly preview: boolean
  readonly watch: boolean
  readonly yes: boolean
}

/** Ids, one a line. Lines that are empty or begin with # are passed over. */
const idsIn = (path: string): string[] =>
  readText(path).split(/\r?\n/).map((line) => line.trim()).filter((line) => line !== '' && !line.startsWith('#'))

/** The request as the API takes it. */
const requestOf = (options: RevokeOptions): Record<string, unknown> => {
  const sessionIds = [...options.session, ...(options.sessionsFrom === undefined ? [] : idsIn(options.sessionsFrom))]
  const lists = {
    resourceOwners: options.org, userIds: options.user, sessionIds, clientIds: options.client,
    fingerprintIds: options.fingerprint, ips: options.ip,
  }
  const filter = {
    ...Object.fromEntries(Object.entries(lists).filter(([, values]) => values.length > 0)),
    ...(options.bornBefore === undefined ? {} : { bornBefore: options.bornBefore }),
    ...(options.bornAfter === undefined ? {} : { bornAfter: options.bornAfter }),
    ...(options.includeExpired ? { includeExpired: true } : {}),
    ...(options.all ? { all: true } : {}),
  }
  if (options.sessionsFrom !== undefined && sessionIds.length === 0) throw new ConfigError([`${options.sessionsFrom} names no session`])
  if (options.all && Object.keys(filter).some((name) => !['all', 'includeExpired'].includes(name))) {
    throw new ConfigError(['--all stands alone: leave out every other filter'])
  }
  if (Object.keys(filter).every((name) => name === 'includeExpired')) {
    throw new ConfigError(['Say which sessions: --org, --user, --session, --client, --fingerprint, --ip, --born-before, --born-after, or --all'])
  }
  return {
    filter,
    exclude: { userIds: options.excludeUser, sessionIds: options.excludeSession },
    mode: options.mode,
    reason: options.reason,
    ...(options.ticket === undefined ? {} : { ticket: options.ticket }),
    ...(options.deliveriesPerSecond === undefined ? {} : { pacing: { deliveriesPerSecond: options.deliveriesPerSecond } }),
  }
}

/**
 * Resolves with the exit code: 1 where nobody confirmed it, or the revocation was cancelled while it was watched. Where its
 * reader leaves, what was accepted stays accepted: 0.
 *
 * @throws ConfigError where it must not even be asked; RemoteError where Curfew refused.
 */
export const revoke = async (options: RevokeOptions, { remote, terminal }: At): Promise<number> => {
  const request = requestOf(options)
  if (!options.preview && !options.yes && !terminal.isInteractive) {
    throw new ConfigError(['Nobody can be asked here: say --yes to end the sessions, or --preview to see which they are.'])
  }
  const preview = readPreview(await remote.call({ method: 'POST', path: '/v1/revocations', body: { ...request, validateOnly: true } }))
  for (const line of previewLines(preview)) terminal.say(line)
  if (options.preview) return 0
  if (!options.yes) {
    const typed = await terminal.ask(`To end ${sizeOf(preview)} sessions (${options.mode}), type ${preview.sessions.count}: `)
    if (typed.replaceAll(/[,. ]/g, '') !== String(preview.sessions.count)) {
      terminal.say(typed === '' ? 'Nothing was ended.' : 'That is not the number. Nothing was ended.')
      return 1
    }
  }
  const accepted = readOperation(await remote.call({
    method: 'POST',
    path: '/v1/revocations',
    body: { ...request, previewToken: preview.previewToken },
    headers: { 'idempotency-key': randomUUID() },
  }))
  for (const line of described(accepted)) terminal.say(line)
  if (options.watch) return (await watchToEnd({ remote, terminal }, { id: idOf(accepted), until: 'ended' })) ?? 0
  terminal.say(watchLater(accepted))
  return 0
}

/** Shows progress until it is over; the exit code says whether everything was ended. Null: its reader left before. */
export const watchToEnd = async ({ remote, terminal }: At, asked: { id: string; until: 'ended' | 'told' }): Promise<number | null> => {
  if (terminal.draws) terminal.say('Ctrl-C ends the watching, not the revocation.')
  const bar = createProgressBar(terminal, Date.now)
  const last = await follow(remote, { ...asked, show: bar.show, isWanted: terminal.isHeard })
  bar.end(last)
  if (last.metadata.state === 'cancelled') return 1
  return last.done || terminal.isHeard() ? 0 : null
}

const perSecond = (text: string): number => {
  if (!/^[1-9]\d{0,6}$/.test(text)) throw new InvalidArgumentError('It must be a whole number from 1.')
  return Number(text)
}

/** Adds the command. */
export const addRevokeCommand = (command: Command, run: Run): void => {
  command
    .option('--org <id>', 'of this organization; this and the others may be given often', another, [])
    .option('--user <id>', 'of this user', another, [])
    .option('--session <id>', 'this session', another, [])
    .option('--sessions-from <file>', 'the sessions that a file names, one a line')
    .option('--client <id>', 'in which this client took part', another, [])
    .option('--fingerprint <id>', 'of this device', another, [])
    .option('--ip <address>', 'from this address or CIDR', another, [])
    .option('--born-before <time>', 'born up to this RFC 3339 time', time)
    .option('--born-after <time>', 'born after it', time)
    .option('--include-expired', 'also those that have expired by themselves', false)
    .option('--all', 'every session within your reach', false)
    .option('--exclude-user <id>', 'spare this user', another, [])
    .option('--exclude-session <id>', 'spare this session', another, [])
    .addOption(new Option('--mode <mode>', 'why, for receivers that can be told the difference').choices(['revoke', 'logout']).default('revoke'))
    .requiredOption('--reason <text>', 'why, for those who ask later (required)')
    .option('--ticket <id>', 'where it is written down')
    .option('--deliveries-per-second <number>', 'tell receivers no faster; sessions end at full speed', perSecond)
    .option('--preview', 'show what would end, and end nothing', false)
    .option('--watch', 'stay until the sessions are ended', false)
    .option('--yes', 'do not ask', false)
    .action((options: RevokeOptions) => run((at) => revoke(options, at)))
}

