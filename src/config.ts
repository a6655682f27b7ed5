/**
 * The only reader of the environment. Each setting is one row: how it is parsed, its default, one sentence.
 * Parsed once at start, checked across fields, frozen, and handed out in slices. The README's settings table
 * is generated from `settings` (`npm run readme`), and a test holds the two together.
 */
import { isIP } from 'node:net'
import { z } from 'zod'
import { permissions } from './model.ts'

/** A hundred years at most: far beyond, dates leave what Postgres and RFC 3339 can hold. */
const seconds = z.coerce.number().int().positive().max(3_153_600_000)
/** A day at most: timers hold 24 days, and fire at once beyond that. */
const milliseconds = z.coerce.number().int().positive().max(86_400_000)
const count = z.coerce.number().int().positive()
const port = z.coerce.number().int().min(0).max(65_535)
/** Without white space, by which lists of issuers are joined on their way to Postgres. */
const httpUrl = z.url({ protocol: /^https?$/ }).regex(/^\S*$/, 'must be a URL without white space')
const list = z.string().transform((text) => text.split(',').map((part) => part.trim()).filter((part) => part !== ''))
const listOf = (isFit: (part: string) => boolean, rule: string) => list.refine((parts) => parts.every(isFit), rule).default([])

const isCidr = (text: string): boolean => {
  const [address = '', prefix = '', ...more] = text.split('/')
  const bits = { 0: -1, 4: 32, 6: 128 }[isIP(address)] ?? -1
  return more.length === 0 && !address.includes('%') && /^\d{1,3}$/.test(prefix) && Number(prefix) <= bits
}
/** Fastify knows these three ranges by name. */
const isProxy = (text: string): boolean => isIP(text) !== 0 || isCidr(text) || ['loopback', 'linklocal', 'uniquelocal'].includes(text)

/** 32 bytes in base64 or base64url. */
const secret = z
  .string()
  .transform((text) => Buffer.from(text, 'base64'))
  .refine((bytes) => bytes.length === 32, 'must be 32 bytes in base64, for example from: openssl rand -base64 32')

const issuerEntry = z.strictObject({
  issuer: httpUrl,
  audience: z.union([z.string().min(1), z.array(z.string().min(1)).min(1)], 'must be a text or a list of texts, none of them empty'),
  introspectedAudiences: z.array(z.string().min(1)).optional(),
  jwksUri: httpUrl.optional(),
  algorithms: z
    .array(z.enum(['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519']))
    .min(1)
    .default(['RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519']),
  tokenTypes: z.array(z.string().min(1)).min(1).default(['at+jwt']),
  introspection: z
    .strictObject({ endpoint: httpUrl, clientId: z.string().min(1), clientSecret: z.string().min(1) })
    .optional(),
  sessionIssuers: z.array(httpUrl).min(1).optional(),
  permissionClaims: z.array(z.string().min(1)).default(['permissions']),
  roleClaim: z.string().min(1).optional(),
  roles: z.record(z.string(), z.array(z.enum(permissions))).default({}),
  organizationClaim: z.string().min(1).optional(),
  organizations: z.array(z.string().min(1)).optional(),
  instance: z.boolean().default(false),
})

/** One issuer whom we believe, as `ISSUERS` lists it. */
export type IssuerEntry = z.output<typeof issuerEntry>

const issuers = z
  .string()
  .transform((text, context) => {
    try {
      return JSON.parse(text) as unknown
    } catch {
      context.addIssue({ code: 'custom', message: 'must be a JSON array' })
      return z.NEVER
    }
  })
  .pipe(z.array(issuerEntry).min(1))
  .refine((entries) => new Set(entries.map((entry) => entry.issuer)).size === entries.length, 'names an issuer twice')

interface Setting {
  readonly parse: z.ZodType
  readonly says: string
  readonly secret?: true
}

const setting = <T extends z.ZodType>(parse: T, says: string, kind: { secret?: true } = {}) => ({ parse, says, ...kind })

/** Every setting, in the order of the README's table. A `parse` without a default is required or may be absent. */
export const settings = {
  DATABASE_URL: setting(z.url({ protocol: /^postgres(ql)?$/ }), 'Postgres, 14 or newer.', { secret: true }),
  REDIS_URL: setting(z.url({ protocol: /^rediss?$/ }).optional(), 'Redis 6.2 or newer with `maxmemory-policy noeviction`, for the queue and the tombstones. Without it the queue runs on Postgres.', { secret: true }),
  CACHE_REDIS_URL: setting(z.url({ protocol: /^rediss?$/ }).optional(), 'The Redis in which your applications keep their sessions; it may evict. Defaults to `REDIS_URL`.', { secret: true }),
  HOST: setting(z.string().min(1).default('127.0.0.1'), 'Address of the API.'),
  PORT: setting(port.default(8080), 'Port of the API; 0 takes a free one.'),
  OPS_HOST: setting(z.string().min(1).default('127.0.0.1'), 'Address of the operations port (`/metrics`, `/healthz`, `/readyz`).'),
  OPS_PORT: setting(port.default(9090), 'Operations port; 0 takes a free one.'),
  PUBLIC_URL: setting(httpUrl.optional(), 'Where callers reach the API; defaults to its address and port.'),
  TRUST_PROXY: setting(listOf(isProxy, 'must be addresses or CIDRs, comma-separated'), 'Comma-separated addresses or CIDRs of proxies whose `X-Forwarded-For` is believed.'),
  ROLES: setting(list.pipe(z.array(z.enum(['api', 'worker'])).min(1)).default(['api', 'worker']), 'What this process does: `api`, `worker` or both, comma-separated.'),
  ISSUERS: setting(issuers, 'JSON array of the issuers whose tokens are believed; the README explains it.', { secret: true }),
  QUEUE_SECRET: setting(secret, '32 bytes in base64 that authenticate jobs and results; the same in every process.', { secret: true }),
  QUEUE_SECRET_PREVIOUS: setting(secret.optional(), 'The former `QUEUE_SECRET`, still accepted while rotating.', { secret: true }),
  KEY_ENCRYPTION_KEY: setting(secret, '32 bytes in base64 that encrypt signing keys and webhook secrets in Postgres.', { secret: true }),
  KEY_ENCRYPTION_KEY_PREVIOUS: setting(secret.optional(), 'The former `KEY_ENCRYPTION_KEY`, still able to decrypt while rotating.', { secret: true }),
  KEY_ROTATION_OVERLAP: setting(seconds.default(86_400), 'Seconds for which the next signing key is published before it may sign: longer than any relying party caches key sets.'),
  CACHE_KEY_TEMPLATES: setting(listOf((key) => /\{(sid|id|userId)\}/.test(key), 'must name {sid}, {id} or {userId} in each: the same key for every session is no session’s'), 'Comma-separated cache keys to delete for every ended session, e.g. `sess:{sid}`; `{sid}` is each sid of the session, `{id}` its id, `{userId}` its user.'),
  CACHE_KEY_PREFIXES: setting(list.default([]), 'Comma-separated prefixes that recorded `cacheKeys` must match; none: no cache keys are accepted.'),
  CACHE_SECOND_DELETE: setting(seconds.default(60), 'Seconds after which cache keys are deleted again: longer than the longest request of your applications.'),
  MAX_TOKEN_LIFETIME: setting(seconds.default(86_400), 'Seconds that a token issued from a session can outlive it; tombstones and deliveries are kept that long.'),
  ALLOW_PRIVATE_RECEIVERS: setting(listOf(isCidr, 'must be CIDRs, comma-separated, e.g. 10.0.0.0/8'), 'Comma-separated CIDRs of private networks whose receivers may be told, also over plain http; e.g. `10.0.0.0/8`. Link-local and metadata addresses never are.'),
  DELIVERY_HORIZON: setting(seconds.default(86_400), 'Seconds for which a delivery is tried.'),
  DELIVERY_TIMEOUT: setting(milliseconds.default(5_000), 'Milliseconds that one attempt may take in all.'),
  DELIVERY_CONCURRENCY: setting(count.default(64), 'Attempts in flight at once in one worker process; up to as many again may hang beside them.'),
  DELIVERY_RETENTION: setting(seconds.default(2_592_000), 'Seconds that deliveries stay once they are acknowledged, moot or failed (30 days).'),
  MAX_SESSION_LIFETIME: setting(seconds.default(2_592_000), 'Seconds after which a session without an expiry ends (30 days), and the longest a session may ask for.'),
  SESSION_RETENTION: setting(seconds.default(34_560_000), 'Seconds that terminated sessions and their events stay (400 days); promises about them hold that long.'),
  COMMIT_WAIT: setting(milliseconds.default(10_000), 'Milliseconds after which a DELETE that is not known to be committed answers 504.'),
  QUEUE_FROM: setting(count.optional(), 'DELETEs that wait in one API process, from which on they go to the workers through the queue, until a quarter of that waits; while few wait it commits them by itself, which is faster for few. Defaults to 128, and to 1000 where the queue is on Postgres, which then has the more to do. 1 sends all through the queue.'),
  MAX_WAITING: setting(count.default(20_000), 'DELETEs that one API process holds at once, and reads for deciding who may; one more is answered 503.'),
  PREVIEW_THRESHOLD: setting(z.coerce.number().int().min(0).max(1_000_000_000).default(1_000), 'Sessions above which a revocation needs a preview; 0: always.'),
  RATE_LIMIT_CALLER: setting(count.default(50), 'Requests per second of one (issuer, subject) without instance-wide `session.delete`.'),
  RATE_LIMIT_REFUSED: setting(count.default(100), 'Refused tokens per minute from one address.'),
  DATABASE_POOL: setting(count.default(10), 'Postgres connections of each pool; a process has up to four, and four connections more for previews.'),
  SHUTDOWN_TIMEOUT: setting(milliseconds.default(10_000), 'Milliseconds for a clean stop; after that the process exits with code 1.'),
  LOG_LEVEL: setting(z.enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']).default('info'), 'Least level that is logged.'),
} as const satisfies Record<string, Setting>

export type SettingName = keyof typeof settings
type Parsed = { readonly [Name in SettingName]: z.output<(typeof settings)[Name]['parse']> }

/** A setting is missing or wrong. The message names it, says what is expected and never shows its value. */
export class ConfigError extends Error {
  constructor(problems: readonly string[]) {
    super(problems.join('\n'))
    this.name = 'ConfigError'
  }
}

/**
 * Reads and checks the named settings and no others, for commands that need no more.
 *
 * @throws ConfigError with one line for each that is missing or wrong.
 */
export const readSettings = <Name extends SettingName>(
  environment: NodeJS.ProcessEnv,
  names: readonly Name[],
): Pick<Parsed, Name> => {
  const problems: string[] = []
  const parsed: Partial<Record<SettingName, unknown>> = {}
  for (const name of names) {
    const text = environment[name]
    const result = settings[name].parse.safeParse(text === '' ? undefined : text, { reportInput: true })
    if (result.success) parsed[name] = result.data
    else for (const issue of result.error.issues) {
      const missing = text === undefined || text === ''
      if (missing) problems.push(`${name} is missing: ${settings[name].says}`)
      else if (issue.path.length === 0) problems.push(`${name} is wrong: ${issue.message}`)
      else problems.push(`${name} (${issue.path.join('.')}) is ${issue.input === undefined ? 'missing' : `wrong: ${issue.message}`}`)
    }
  }
  if (problems.length > 0) throw new ConfigError(problems)
  return parsed as Pick<Parsed, Name>
}

export const settingNames = Object.keys(settings) as readonly SettingName[]

/** The text that a setting has when nobody sets it; `required` where there is none, null where it may be absent. */
export const defaultOf = (name: SettingName): { text: string | null } | 'required' => {
  const result = settings[name].parse.safeParse(undefined)
  if (!result.success) return 'required'
  if (result.data === undefined) return { text: null }
  return { text: String(result.data as string | number | readonly string[]) }
}

/** How long a signing key is published before and after it signs: whatever may still be told is told with a published key. */
export const keyRotation = (parsed: Pick<Parsed, 'KEY_ROTATION_OVERLAP' | 'DELIVERY_HORIZON'>) => ({
  overlapSeconds: parsed.KEY_ROTATION_OVERLAP,
  retiredSeconds: Math.max(parsed.KEY_ROTATION_OVERLAP, parsed.DELIVERY_HORIZON),
})

/** On Postgres a hop through the queue costs the database as much again as the commit, so only what two full batches cannot hold goes. */
const QUEUE_FROM = { redis: 128, postgres: 1_000 } as const

/**
 * Reads and checks every setting.
 *
 * @throws ConfigError with one line for each setting that is missing or wrong.
 */
export const readConfig = (environment: NodeJS.ProcessEnv) => {
  const parsed = readSettings(environment, settingNames)
  return Object.freeze({
    database: { url: parsed.DATABASE_URL, poolSize: parsed.DATABASE_POOL },
    redisUrl: parsed.REDIS_URL ?? null,
    cache: {
      redisUrl: parsed.CACHE_REDIS_URL ?? parsed.REDIS_URL ?? null,
      keyTemplates: parsed.CACHE_KEY_TEMPLATES,
      keyPrefixes: parsed.CACHE_KEY_PREFIXES,
      secondDeleteSeconds: parsed.CACHE_SECOND_DELETE,
      maxTokenLifetimeSeconds: parsed.MAX_TOKEN_LIFETIME,
    },
    http: {
      host: parsed.HOST,
      port: parsed.PORT,
      opsHost: parsed.OPS_HOST,
      opsPort: parsed.OPS_PORT,
      publicUrl: parsed.PUBLIC_URL ?? null,
      trustProxy: parsed.TRUST_PROXY,
    },
    roles: parsed.ROLES,
    issuers: parsed.ISSUERS,
    queue: {
      secret: parsed.QUEUE_SECRET,
      secretPrevious: parsed.QUEUE_SECRET_PREVIOUS ?? null,
      commitWaitMs: parsed.COMMIT_WAIT,
      maxWaiting: parsed.MAX_WAITING,
      queueFrom: parsed.QUEUE_FROM ?? (parsed.REDIS_URL === undefined ? QUEUE_FROM.postgres : QUEUE_FROM.redis),
    },
    revocations: { previewThreshold: parsed.PREVIEW_THRESHOLD },
    limits: { callerPerSecond: parsed.RATE_LIMIT_CALLER, refusedPerMinute: parsed.RATE_LIMIT_REFUSED },
    keys: {
      encryptionKey: parsed.KEY_ENCRYPTION_KEY,
      encryptionKeyPrevious: parsed.KEY_ENCRYPTION_KEY_PREVIOUS ?? null,
      rotation: keyRotation(parsed),
    },
    delivery: {
      allowPrivateReceivers: parsed.ALLOW_PRIVATE_RECEIVERS,
      horizonSeconds: parsed.DELIVERY_HORIZON,
      timeoutMs: parsed.DELIVERY_TIMEOUT,
      concurrency: parsed.DELIVERY_CONCURRENCY,
      retentionSeconds: parsed.DELIVERY_RETENTION,
    },
    sessions: {
      maxLifetimeSeconds: parsed.MAX_SESSION_LIFETIME,
      retentionSeconds: parsed.SESSION_RETENTION,
      maxTokenLifetimeSeconds: parsed.MAX_TOKEN_LIFETIME,
    },
    shutdownTimeoutMs: parsed.SHUTDOWN_TIMEOUT,
    logLevel: parsed.LOG_LEVEL,
  })
}

export type Config = ReturnType<typeof readConfig>
