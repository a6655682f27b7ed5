/**
 * `curfew cutoff`: sets and lists cutoff rules straight in Postgres, for an operator who can do nothing else at this
 * moment. A rule is in force with its commit. Guards on Redis are told at once where `REDIS_URL` is set; whatever holds
 * rules in memory follows within a second or so in any case.
 */
import { userInfo } from 'node:os'
import type { Command } from 'commander'
import { createStreamChannel } from '../channels/stream.ts'
import { readSettings } from '../config.ts'
import { createAnnounceRules } from '../outbox/announce-rules.ts'
import { countKilled, listRules } from '../store/cutoff-rules.ts'
import type { CutoffRule } from '../store/cutoff-rules.ts'
import { openDatabase } from '../store/postgres.ts'
import type { Database } from '../store/postgres.ts'
import { createPlainRedis } from '../store/redis.ts'
import { createSetRule } from '../termination/cutoff-rules.ts'
import { another, time } from './texts.ts'

interface SetOptions {
  readonly issuer: string
  readonly org?: string
  readonly user?: string
  readonly bornBefore?: string
  readonly excludeUser: readonly string[]
  readonly excludeSession: readonly string[]
  readonly reason: string
}

interface CommandDeps {
  readonly environment: NodeJS.ProcessEnv
  /** Writes one line. */
  readonly say: (line: string) => void
}

/** Counting further would keep the operator waiting. */
const MOST_COUNTED = 100_000
const PAGE = 500
/** From an operator's machine, Redis may be far away. */
const TELLING_MS = 3_000

const withDatabase = async (environment: NodeJS.ProcessEnv, use: (db: Database) => Promise<void>): Promise<void> => {
  const { DATABASE_URL } = readSettings(environment, ['DATABASE_URL'])
  const db = openDatabase({ url: DATABASE_URL, name: 'cli', max: 1 })
  try {
    await use(db)
  } finally {
    await db.$disconnect()
  }
}

/** At once; where that fails, workers do it within a second or so, so it says so and never rejects. */
const tellGuards = async ({ environment, say, db }: CommandDeps & { db: Database }): Promise<void> => {
  const { REDIS_URL, MAX_TOKEN_LIFETIME } = readSettings(environment, ['REDIS_URL', 'MAX_TOKEN_LIFETIME'])
  if (REDIS_URL === undefined) return
  const redis = createPlainRedis(REDIS_URL, () => {})
  const stream = createStreamChannel({ redis, maxTokenLifetimeSeconds: MAX_TOKEN_LIFETIME, now: Date.now })
  const warn = () => say('Guards on Redis could not be told at once; a worker will tell them within a second or so.')
  await createAnnounceRules({ db, stream, log: { warn }, boundMs: TELLING_MS })()
  redis.disconnect()
}

/** One line a rule: when it was set, its id, what it kills, whom it spares, who set it and why. */
const lineOf = (rule: CutoffRule): string =>
  [
    rule.created,
    rule.id,
    `issuer=${rule.issuer}`,
    ...(rule.organization === null ? [] : [`org=${rule.organization}`]),
    ...(rule.user === null ? [] : [`user=${rule.user}`]),
    `cutoff=${rule.cutoff}`,
    `expires=${rule.expires}`,
    ...rule.excludeUsers.map((user) => `excludes user=${user}`),
    ...rule.excludeSessions.map((session) => `excludes session=${session}`),
    `by=${rule.actor.subject} (${rule.actor.issuer})`,
    `reason=${rule.reason}`,
  ].join('  ')

const setRule = ({ environment, say }: CommandDeps) => (options: SetOptions): Promise<void> =>
  withDatabase(environment, async (db) => {
    const lifetimes = readSettings(environment, ['MAX_SESSION_LIFETIME', 'MAX_TOKEN_LIFETIME'])
    const set = createSetRule({ maxLifetimeSeconds: lifetimes.MAX_SESSION_LIFETIME, maxTokenLifetimeSeconds: lifetimes.MAX_TOKEN_LIFETIME })
    const rule = await set(db, {
      issuer: options.issuer,
      organization: options.org ?? null,
      user: options.user ?? null,
      bornBefore: options.bornBefore ?? null,
      excludeUsers: options.excludeUser,
      excludeSessions: options.excludeSession,
      reason: options.reason,
      actor: { issuer: 'curfew:cli', subject: userInfo().username },
      revocationId: null,
    })
    say(lineOf(rule))
    await tellGuards({ environment, say, db })
    // A misspelt issuer kills nothing, and nobody would notice.
    const killed = await countKilled(db, { rule, most: MOST_COUNTED })
    const number = killed === MOST_COUNTED ? `at least ${killed}` : killed
    say(`In force. It kills ${number} registered sessions, and tokens whether or not their session is registered.`)
  })

const listAll = ({ environment, say }: CommandDeps) => ({ issuer }: { issuer?: string }): Promise<void> =>
  withDatabase(environment, async (db) => {
    let before: string | null = null
    for (;;) {
      const page: CutoffRule[] = await listRules(db, { issuer: issuer ?? null, before, limit: PAGE })
      for (const rule of page) say(lineOf(rule))
      if (page.length === 0 && before === null) say('No rules are in force.')
      if (page.length < PAGE) return
      before = page.at(-1)?.version ?? null
    }
  })

/** Adds `set` and `list`. @param issuerOption the words of `--issuer`. @param url its parser. */
export const addCutoffCommands = (
  cutoff: Command,
  deps: CommandDeps & { issuerOption: readonly [string, string]; url: (text: string) => string },
): void => {
  const { issuerOption, url } = deps
  cutoff.command('set').description('set a rule; it cannot be taken back')
    .requiredOption(issuerOption[0], issuerOption[1], url)
    .option('--org <id>', 'only this organization')
    .option('--user <id>', 'only this user, the issuer\'s `sub`')
    .option('--born-before <time>', 'RFC 3339; what was born later lives (default: now)', time)
    .option('--exclude-user <id>', 'spare this user; may be given often', another, [])
    .option('--exclude-session <id>', 'spare this session; may be given often', another, [])
    .requiredOption('--reason <text>', 'why, for those who ask later (required)')
    .action(setRule(deps))
  cutoff.command('list').description('list the rules in force, newest first')
    .option(issuerOption[0], issuerOption[1], url)
    .action(listAll(deps))
}
