#!/usr/bin/env node
/**
 * The commands of Curfew. Settings come from the environment alone; a command checks those that it needs.
 *
 * Exit codes: 0 it is done, 1 it could not be done, 2 a setting or an argument is wrong (nothing was done).
 * Errors are sentences on standard error, without a stack, and without any setting's value.
 *
 * A reader may leave (`| head -1`). Then nothing more is said, and what was asked for is done all the same: the exit code
 * is that of what was done. Only what is there for its reader alone, watching and a report, ends with its reader.
 */
import { readFileSync } from 'node:fs'
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { addCutoffCommands } from './cli/cutoff.ts'
import { readText } from './cli/files.ts'
import { ArgumentRefused, RemoteError, createRemote, readRemote, readUrl } from './cli/remote.ts'
import { ReportBroken } from './cli/report-file.ts'
import { addRevocationsCommands } from './cli/revocations.ts'
import { addRevokeCommand } from './cli/revoke.ts'
import type { Run } from './cli/revoke.ts'
import { createTerminal } from './cli/terminal.ts'
import { NotVerified, verifyReport } from './cli/verify-report.ts'
import type { VerifyOptions } from './cli/verify-report.ts'
import { ConfigError, defaultOf, keyRotation, readSettings, settingNames, settings } from './config.ts'
import { CurfewError } from './errors.ts'
import { createKeyring } from './keys.ts'
import { main } from './main.ts'
import { createSigner } from './channels/signing.ts'
import { signingAlgorithms } from './channels/signing-key.ts'
import { migrateQueue } from './queue/backend.ts'
import { MigrationError, migrate } from './store/migrations.ts'
import { openDatabase } from './store/postgres.ts'
import { cannotConnect } from './store/postgres-failures.ts'
import { RedisUnusableError } from './store/redis.ts'

/** Both streams tell an error for each write, and without a listener that would end the process half way. */
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error
  })
}

const say = (line: string): void => void process.stdout.write(`${line}\n`)

const version = (): string => {
  const { version: text } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }
  return text
}

const migrateCommand = async (): Promise<void> => {
  const { DATABASE_URL } = readSettings(process.env, ['DATABASE_URL'])
  const applied = await migrate(DATABASE_URL)
  await migrateQueue(DATABASE_URL)
  for (const name of applied) say(`applied ${name}`)
  say(applied.length === 0 ? 'Up to date.' : 'Done.')
}

/** One line a setting, fit to be read by a person; a secret shows only whether it is set. */
const printConfig = (): void => {
  readSettings(process.env, settingNames)
  for (const name of settingNames) {
    const text = process.env[name]
    const isSet = text !== undefined && text !== ''
    const byDefault = defaultOf(name)
    if (isSet) say(`${name}=${'secret' in settings[name] ? '(set, not shown)' : text}`)
    else if (byDefault !== 'required') say(`${name}=${byDefault.text ?? ''}  # default`)
  }
}

type Signer = ReturnType<typeof createSigner>

/** Opens what the key commands need, and closes it whatever becomes of the command. */
const withSigner = async (use: (signer: Signer) => Promise<void>): Promise<void> => {
  const read = readSettings(process.env, ['DATABASE_URL', 'KEY_ENCRYPTION_KEY', 'KEY_ENCRYPTION_KEY_PREVIOUS', 'KEY_ROTATION_OVERLAP', 'DELIVERY_HORIZON'])
  const db = openDatabase({ url: read.DATABASE_URL, name: 'cli', max: 1 })
  const keyring = createKeyring({
    encryptionKey: read.KEY_ENCRYPTION_KEY,
    encryptionKeyPrevious: read.KEY_ENCRYPTION_KEY_PREVIOUS ?? null,
  })
  try {
    await use(createSigner({ db, keyring, ...keyRotation(read) }))
  } finally {
    await db.$disconnect()
  }
}

const listKeys = (issuer?: string): Promise<void> =>
  withSigner(async (signer) => {
    const keys = await signer.list(issuer)
    for (const { issuer: owner, alg, state, id, imported, createdAt } of keys) {
      say([owner, alg, state, id, imported ? 'imported' : 'made here', createdAt.toISOString()].join('  '))
    }
    if (keys.length === 0) say('No keys yet: one is made with the first delivery for an issuer, or imported by you.')
  })

const importKey = (options: { issuer: string; file: string }): Promise<void> =>
  withSigner(async (signer) => {
    const { kid, alg } = await signer.importKey(options.issuer, readText(options.file))
    say(`${kid} (${alg}) signs for ${options.issuer} now.`)
  })

const rotateKey = (options: { issuer: string; alg: string; force: boolean }): Promise<void> =>
  withSigner(async (signer) => {
    const result = await signer.rotate(options.issuer, options.alg, { force: options.force })
    if ('made' in result) {
      say(`${result.made} is published as the next key. Rotate again from ${result.ripeAt.toISOString()} on: relying parties need time to fetch it.`)
    } else {
      say(`${result.promoted} signs for ${options.issuer} now; ${result.retired ?? 'no key'} is retired and stays published while anything may be told.`)
    }
  })

/** Runs a command at a Curfew elsewhere; what it resolves with is the exit code. */
const atRemote: Run = async (use) => {
  const remote = createRemote(readRemote(process.env))
  process.exitCode = await use({ remote, terminal: createTerminal({ input: process.stdin, output: process.stdout }) })
}

const verifyCommand = async (file: string, options: VerifyOptions): Promise<void> => {
  for (const line of await verifyReport(file, { ...options, curfewUrl: readUrl(process.env) })) say(line)
}

const httpUrl = (text: string): string => {
  if (!URL.canParse(text) || !/^https?:$/.test(new URL(text).protocol)) throw new InvalidArgumentError('It must be an http(s) URL, written as in `iss`.')
  return text
}

const issuerOption = ['--issuer <url>', 'the issuer, written as in `iss`'] as const

const buildProgram = (): Command => {
  const program = new Command('curfew')
    .description('Ends user sessions everywhere, for certain. Settings come from the environment; see the README.')
    .version(version())
    .configureHelp({ showGlobalOptions: true })
    .exitOverride()

  program.command('migrate').description('bring the database up to date; may be repeated').action(migrateCommand)
  program
    .command('serve')
    .description('serve until stopped')
    .option('--roles <roles>', 'what this process does: api, worker or both, comma-separated (else ROLES)')
    .action(async ({ roles }: { roles?: string }) => {
      // An abandoned stop may leave connections open, which would keep the process.
      process.exit(await main(roles === undefined ? process.env : { ...process.env, ROLES: roles }))
    })

  const keys = program.command('keys').description('the keys that sign logout tokens in an issuer\'s name')
  keys.command('list').description('list them').option(issuerOption[0], issuerOption[1], httpUrl)
    .action(({ issuer }: { issuer?: string }) => listKeys(issuer))
  keys.command('import').description('make a private key of yours the one that signs')
    .requiredOption(issuerOption[0], issuerOption[1], httpUrl)
    .requiredOption('--file <path>', 'a private key: JWK, or PEM without a password')
    .action(importKey)
  keys.command('rotate').description('publish a next key; with one published, let it sign and retire the current one')
    .requiredOption(issuerOption[0], issuerOption[1], httpUrl)
    .addOption(new Option('--alg <name>', 'of which key').choices([...signingAlgorithms]).default('RS256'))
    .option('--force', 'let the next key sign at once, also before KEY_ROTATION_OVERLAP is over (a key that has leaked)', false)
    .action(rotateKey)

  const cutoff = program.command('cutoff').description('rules by which whatever was born up to a moment is dead, at once')
  addCutoffCommands(cutoff, { environment: process.env, issuerOption, url: httpUrl, say })

  addRevokeCommand(program.command('revoke').description('end many sessions, at the Curfew of CURFEW_URL, as CURFEW_TOKEN'), atRemote)
  const revocations = program.command('revocations').description('what was revoked there, how far it is, and its report')
  addRevocationsCommands(revocations, atRemote)
  program.command('verify-report').description('check a report that `curfew revocations report` has written').argument('<file>', 'the report')
    .option('--jwks <file or url>', 'the keys to trust (default: those that the Curfew of CURFEW_URL publishes)')
    .option('--issuer <url>', 'in whose name it must be signed', httpUrl)
    .action(verifyCommand)

  const config = program.command('config').description('the settings')
  config.command('print').description('check them all and print them; secrets are not shown').action(printConfig)
  return program
}

/** The sentence and the exit code for whatever a command threw. */
const explain = (error: unknown): { sentence: string; code: number } => {
  if (error instanceof ConfigError || error instanceof ArgumentRefused) return { sentence: error.message, code: 2 }
  // Commander has written its own sentence already; help and version are not errors.
  if (error instanceof CommanderError) return { sentence: '', code: error.exitCode === 0 ? 0 : 2 }
  if (error instanceof CurfewError && error.kind === 'invalid_argument') return { sentence: error.message, code: 2 }
  if ([MigrationError, RedisUnusableError, CurfewError, RemoteError].some((known) => error instanceof known)) {
    return { sentence: (error as Error).message, code: 1 }
  }
  if (error instanceof NotVerified || error instanceof ReportBroken) return { sentence: `Not verified: ${error.message}`, code: 1 }
  if (cannotConnect(error)) return { sentence: 'Postgres cannot be reached; is DATABASE_URL right?', code: 1 }
  // A report whose reader has left.
  if (error instanceof Error && (error as NodeJS.ErrnoException).code === 'EPIPE') return { sentence: '', code: 1 }
  const { message, code } = error instanceof Error ? (error as NodeJS.ErrnoException) : { message: String(error), code: undefined }
  return { sentence: message === '' ? (code ?? 'It failed.') : message, code: 1 }
}

try {
  await buildProgram().parseAsync()
} catch (error) {
  const { sentence, code } = explain(error)
  if (sentence !== '') process.stderr.write(`${sentence}\n`)
  process.exit(code)
}
