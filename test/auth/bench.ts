/** What the authentication tests share: a silent log, a clock to wind on, and how a refusal is looked at. */
import { createAuthenticate } from '../../src/auth/authenticate.ts'
import type { Caller } from '../../src/auth/caller.ts'
import type { Fetch } from '../../src/auth/fetch-json.ts'
import { createTrust } from '../../src/auth/trust.ts'
import type { IssuerEntry } from '../../src/config.ts'
import { CurfewError } from '../../src/errors.ts'
import { createTelemetry } from '../../src/telemetry.ts'

export const silentLog = createTelemetry({ level: 'silent' }).log

/** Real time plus whatever was wound on. */
export const createClock = () => {
  let aheadMs = 0
  return {
    now: () => Date.now() + aheadMs,
    elapsed: () => performance.now() + aheadMs,
    pass: (milliseconds: number): void => {
      aheadMs += milliseconds
    },
  }
}

type Answer = { readonly caller: Caller } | { readonly refused: string; readonly because: string }

/** Asks with a bearer token (or a whole header) and never rejects for a refusal. */
export const createAsker = (
  issuers: readonly IssuerEntry[],
  options: { clock?: ReturnType<typeof createClock>; fetch?: Fetch } = {},
) => {
  const clock = options.clock ?? createClock()
  const authenticate = createAuthenticate({
    trust: createTrust({ issuers, log: silentLog, elapsed: clock.elapsed, ...(options.fetch === undefined ? {} : { fetch: options.fetch }) }),
    log: silentLog,
    now: clock.now,
    elapsed: clock.elapsed,
  })
  const askHeader = async (authorization: string | undefined): Promise<Answer> => {
    try {
      return { caller: await authenticate(authorization) }
    } catch (error) {
      if (!(error instanceof CurfewError)) throw error
      const { cause } = error
      return { refused: error.kind, because: cause instanceof Error ? cause.message : '' }
    }
  }
  return { authenticate, askHeader, ask: (token: string) => askHeader(`Bearer ${token}`) }
}

/** A caller with everything as given and nothing else. */
export const callerWith = (overrides: Partial<Caller> = {}): Caller => ({
  actor: { issuer: 'https://issuer.example', subject: 'user-1' },
  sid: null,
  bornMs: 0,
  organizations: [],
  sessionIssuers: ['https://issuer.example'],
  grants: new Map(),
  ...overrides,
})
