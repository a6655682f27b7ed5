/**
 * The parts of the demo in the order in which they need each other, stopped in the reverse order. A stop while it is
 * still starting stops what has been started, and nothing more is.
 */
import { join } from 'node:path'
import type { JWK } from 'jose'
import { createSigner } from '../channels/signing.ts'
import { readConfig } from '../config.ts'
import { createKeyring } from '../keys.ts'
import { permissions } from '../model.ts'
import { migrateQueue } from '../queue/backend.ts'
import { createService } from '../service.ts'
import { migrate } from '../store/migrations.ts'
import { openDatabase } from '../store/postgres.ts'
import { createDemoIssuer } from './demo-issuer.ts'
import { createDemoRelyingParty } from './demo-relying-party.ts'
import { readDemoSecrets } from './demo-secrets.ts'
import type { DemoSecrets } from './demo-secrets.ts'
import { alice, createDemoTenant, demoClientId, demoUsers } from './demo-tenant.ts'
import { startLocalPostgres } from './local-postgres.ts'
import type { StartPorts } from './start-options.ts'

export interface DemoOptions {
  readonly host: string
  readonly ports: StartPorts
  readonly environment: NodeJS.ProcessEnv
  /** Where data and secrets stay. */
  readonly folder: string
  readonly say: (text: string) => void
}

interface Part {
  start(): Promise<unknown>
  stop(): Promise<void>
}

export const createDemo = (options: DemoOptions) => {
  const { host, ports, folder, say } = options
  const running: Part[] = []
  let stopping: Promise<void> | null = null
  let tellLost: (why: string) => void = () => {}
  const lost = new Promise<string>((resolve) => (tellLost = resolve))

  const run = async (part: Part): Promise<void> => {
    if (stopping !== null) return
    running.push(part)
    await part.start()
  }

  const start = async (): Promise<void> => {
    const secrets = await readDemoSecrets(join(folder, 'secrets.json'))
    const databaseUrl = await startPostgres(secrets)
    const [api, issuerUrl, shop] = [ports.api, ports.issuer, ports.relyingParty].map((port) => `http://${inUrl(host)}:${port}`) as [string, string, string]
    const config = readConfig(settingsOf({ options, secrets, databaseUrl, api, issuer: issuerUrl }))
    // Another port is another issuer, and a key's name belongs to one.
    const issuerKey = { ...secrets.issuerKey, kid: `demo-${ports.issuer}` }
    await importIssuerKey({ databaseUrl, issuer: issuerUrl, key: issuerKey, encryptionKey: config.keys.encryptionKey })

    const service = await createService(config)
    const client = { id: demoClientId, secret: secrets.clientSecret }
    let signedIn = ''
    const issuer = await createDemoIssuer({
      host, port: ports.issuer, url: issuerUrl, audience: api, key: issuerKey, users: demoUsers,
      client: { ...client, redirectUri: `${shop}/callback` },
      register: async (login) => {
        await tenant.register(login)
        signedIn = login.sessionId
      },
    })
    const relyingParty = createDemoRelyingParty({
      host, port: ports.relyingParty, url: shop, issuer: issuerUrl, client,
      onSignedOut: ({ name, sid }) => say(`Demo shop: ${name} is signed out (session ${sid}).`),
    })
    const tenant = createDemoTenant({
      api, issuer: issuerUrl, logoutUrl: `${shop}/backchannel-logout`,
      token: () => issuer.accessToken({ sub: 'demo-issuer', client_id: 'demo-issuer', permissions: ['session.write', 'receiver.write'] }),
    })
    await run(issuer)
    await run(service)
    await run(relyingParty)
    if (stopping !== null) return
    await tenant.seed()
    await signIn(`${shop}/login?as=${alice.id}`)
    const token = await issuer.accessToken({ sub: 'admin', client_id: 'demo-console', permissions })
    say(banner({ api, shop, ops: `http://${inUrl(host)}:${ports.ops}`, token, sessionId: signedIn }))
  }

  const startPostgres = async (secrets: DemoSecrets): Promise<string> => {
    const postgres = await startLocalPostgres({ folder, password: secrets.databasePassword })
    if (postgres.folder !== folder) say(`Postgres does not run as root and cannot reach ${folder}; its data are in ${postgres.folder}.`)
    await run({ start: async () => {}, stop: postgres.stop })
    void postgres.gone.then(() => {
      if (stopping === null) tellLost(`Postgres is gone; its log is ${join(postgres.folder, 'postgres.log')}.`)
    })
    if (stopping !== null) await postgres.stop()
    await migrate(postgres.url)
    await migrateQueue(postgres.url)
    return postgres.url
  }

  /** Stops what runs, the last started first; one that fails to stop does not keep the others. May be repeated. */
  const stopAll = async (): Promise<void> => {
    const failures: unknown[] = []
    for (const part of [...running].reverse()) await part.stop().catch((error: unknown) => failures.push(error))
    if (failures.length > 0) throw failures[0]
  }

  return {
    /** Resolves, with the reason, when the demo cannot go on. */
    lost,
    /** Starts everything and prints what to try. @throws Error with a sentence that says what is in the way. */
    start,
    stop: (): Promise<void> => (stopping ??= stopAll()),
  }
}

/** The environment with what the demo decides; whoever wants a Postgres or Redis of their own runs `curfew serve`. */
const settingsOf = (given: {
  options: DemoOptions
  secrets: DemoSecrets
  databaseUrl: string
  api: string
  issuer: string
}): NodeJS.ProcessEnv => {
  const { options, secrets, databaseUrl, api, issuer } = given
  const { host, ports, environment } = options
  return {
    // A terminal is read by a person: by default only what went wrong.
    LOG_LEVEL: 'warn',
    ...environment,
    DATABASE_URL: databaseUrl,
    REDIS_URL: '',
    CACHE_REDIS_URL: '',
    HOST: host,
    PORT: String(ports.api),
    OPS_HOST: host,
    OPS_PORT: String(ports.ops),
    PUBLIC_URL: api,
    ROLES: 'api,worker',
    ISSUERS: JSON.stringify([{ issuer, audience: api, jwksUri: `${issuer}/jwks`, instance: true }]),
    QUEUE_SECRET: secrets.queueSecret,
    KEY_ENCRYPTION_KEY: secrets.keyEncryptionKey,
    ALLOW_PRIVATE_RECEIVERS: '127.0.0.0/8,::1/128',
  }
}

/** Logout tokens are the issuer's word: Curfew signs them with the key that the issuer publishes. */
const importIssuerKey = async (given: { databaseUrl: string; issuer: string; key: JWK; encryptionKey: Uint8Array }): Promise<void> => {
  const db = openDatabase({ url: given.databaseUrl, name: 'start', max: 1 })
  const keyring = createKeyring({ encryptionKey: given.encryptionKey, encryptionKeyPrevious: null })
  try {
    await createSigner({ db, keyring }).importKey(given.issuer, given.key)
  } finally {
    await db.$disconnect()
  }
}

/** What a browser does when its user clicks "Sign in": from redirect to redirect, at most the four that there are. */
const signIn = async (url: string): Promise<void> => {
  let at = url
  for (let step = 0; step < 4; step += 1) {
    const answer = await fetch(at, { redirect: 'manual' })
    const next = answer.headers.get('location')
    if (next === null) {
      if (!answer.ok) throw new Error(`The demo user could not sign in: ${answer.status} from ${new URL(at).origin}`)
      return
    }
    at = new URL(next, at).href
  }
}

const inUrl = (host: string): string => (host.includes(':') ? `[${host}]` : host)

const banner = (shown: { api: string; shop: string; ops: string; token: string; sessionId: string }): string => `
Curfew runs, for trying out: on this machine only, with demo users and without Redis.

  API        ${shown.api}
  Reference  ${shown.api}/docs
  Metrics    ${shown.ops}/metrics
  Demo shop  ${shown.shop}  (open it: Alice is signed in)

An administrator's token, good for one hour:

${shown.token}

End Alice's session, and look at the demo shop:

curl -i -X DELETE ${shown.api}/v2/sessions/${shown.sessionId} -H 'Authorization: Bearer ${shown.token}'

Ctrl-C stops everything.
`
