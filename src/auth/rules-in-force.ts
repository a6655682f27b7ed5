/**
 * The cutoff rules in this process's memory, for the requests that must not wait for a query: a flood of DELETEs from a
 * service account without a session. Everything else asks Postgres each time.
 *
 * Guarantee: an answer is from rules read at most a second ago; where that cannot be had (Postgres is away or slow)
 * there is no answer, and the request asks Postgres like the others. Rules are read as they are added, by version, and
 * once a minute as a whole, which also forgets the expired.
 */
import { createRules } from '../client/rules.ts'
import type { Rules } from '../client/rules.ts'
import type { Death, TokenFacts } from '../store/authorization.ts'
import type { VersionedRule } from '../store/cutoff-rules.ts'
import type { Log } from '../telemetry.ts'

export interface RulesInForce {
  /** A rule that kills the token, or null; undefined where that cannot be said from memory. */
  death(token: TokenFacts): Death | null | undefined
  /** Reads what is new now. Never rejects. */
  refresh(): Promise<void>
  start(): Promise<void>
  stop(): Promise<void>
}

/** A look into an index; four of them fit into the second. */
const REFRESH_MS = 250
const MAX_AGE_MS = 1_000
const RELOAD_MS = 60_000
/** One page: some hundred kilobytes. */
const PAGE = 1_000

/** @param read rules committed after a version, in that order, up to a limit. @param elapsed milliseconds that never jump. */
export const createRulesInForce = (deps: {
  read: (asked: { after: bigint; limit: number }) => Promise<readonly VersionedRule[]>
  log: Pick<Log, 'warn'>
  elapsed?: () => number
}): RulesInForce => {
  const { read, log, elapsed = () => performance.now() } = deps
  let rules: Rules = createRules()
  let version = 0n
  let readAtMs = Number.NEGATIVE_INFINITY
  let reloadAtMs = Number.NEGATIVE_INFINITY
  let failing = false
  let reading: Promise<void> = Promise.resolve()
  let timer: NodeJS.Timeout | null = null

  const readOn = async (into: Rules, from: bigint): Promise<bigint> => {
    let after = from
    for (;;) {
      const page = await read({ after, limit: PAGE })
      for (const rule of page) into.add(rule)
      after = page.at(-1)?.version ?? after
      if (page.length < PAGE) return after
    }
  }

  const readNew = async (): Promise<void> => {
    const sentMs = elapsed()
    try {
      if (sentMs >= reloadAtMs) {
        const fresh = createRules()
        version = await readOn(fresh, 0n)
        rules = fresh
        reloadAtMs = sentMs + RELOAD_MS
      } else {
        version = await readOn(rules, version)
      }
      readAtMs = sentMs
      failing = false
    } catch (err) {
      // Not passed on: memory grows too old by itself, and then no longer answers.
      if (!failing) log.warn({ event: 'rules.unread', err }, 'cutoff rules cannot be read; requests ask for themselves')
      failing = true
    }
  }

  // One after the other: who asks for what is new now must not be given a read that was sent before.
  const refresh = (): Promise<void> => (reading = reading.then(readNew))

  const schedule = (): void => {
    timer = setTimeout(() => {
      void refresh().then(() => {
        if (timer !== null) schedule()
      })
    }, REFRESH_MS)
  }

  const find = ({ actor, organizations, sid, bornMs }: TokenFacts): Death | null => {
    const born = { issuer: actor.issuer, user: actor.subject, sessionId: sid, bornMs }
    for (const organization of organizations.length === 0 ? [null] : organizations) {
      const rule = rules.find({ ...born, organization })
      if (rule !== null) return { by: 'rule', issuer: rule.issuer, id: rule.id }
    }
    return null
  }

  return {
    death: (token) => {
      if (elapsed() - readAtMs > MAX_AGE_MS) return undefined
      return rules.size === 0 ? null : find(token)
    },
    refresh,
    start: async () => {
      await refresh()
      if (timer === null) schedule()
    },
    stop: async () => {
      if (timer !== null) clearTimeout(timer)
      timer = null
      await reading
    },
  }
}
