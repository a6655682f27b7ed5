/**
 * New cutoff rules are put on the stream: at once by whoever has set one, and by upkeep where that failed. Those who follow
 * over HTTP find them in Postgres by themselves.
 *
 * Rules commit in the order of their versions, so those above the one on the stream are all that is missing there.
 */
import { rulePieces } from '../channels/stream-pieces.ts'
import type { StreamChannel } from '../channels/stream.ts'
import { within } from '../queue/within.ts'
import { readRulesAfter } from '../store/cutoff-rules.ts'
import type { Database } from '../store/postgres.ts'
import { ruleOnTheWire } from '../store/stream.ts'
import type { Log } from '../telemetry.ts'

/** Rules read at once. */
const RULES_AT_ONCE = 500
/** Whoever sets a rule waits no longer; upkeep comes back to it within a second or so. */
const BOUND_MS = 500
/** Each time another process has announced rules meanwhile, perhaps without ours. */
const TIMES = 5

/** Announces all rules after a version. False where another process has moved the stream on meanwhile. */
const announceRulesAfter = async (
  { db, stream }: { db: Database; stream: Pick<StreamChannel, 'announceRules'> },
  version: bigint,
): Promise<boolean> => {
  let after = version
  for (;;) {
    const rules = await readRulesAfter(db, { after, limit: RULES_AT_ONCE })
    if (rules.length === 0) return true
    for (const piece of rulePieces(rules)) {
      const to = piece.at(-1)?.version ?? after
      if (!(await stream.announceRules(piece.map(ruleOnTheWire), { after, to }))) return false
      after = to
    }
  }
}

/** Announces all that the stream lacks. False where others were faster each time. Repeat-safe. */
export const announceMissingRules = async (deps: { db: Database; stream: Pick<StreamChannel, 'announceRules' | 'state'> }): Promise<boolean> => {
  for (let times = 0; times < TIMES; times += 1) {
    if (await announceRulesAfter(deps, (await deps.stream.state()).rule)) return true
  }
  return false
}

/**
 * Puts what was just committed on the stream now, within a bound; for whoever has set a rule, after the commit.
 * Never rejects: what fails is upkeep's. Without Redis it does nothing.
 */
export const createAnnounceRules = (deps: {
  db: Database
  /** Null: there is no Redis. */
  stream: Pick<StreamChannel, 'announceRules' | 'state'> | null
  log: Pick<Log, 'warn'>
  boundMs?: number
}): (() => Promise<void>) => {
  const { db, stream, log, boundMs = BOUND_MS } = deps
  return async () => {
    if (stream === null) return
    try {
      await within(announceMissingRules({ db, stream }), boundMs, 'Announcing rules')
    } catch (err) {
      log.warn({ event: 'rules.unannounced', err }, 'new cutoff rules could not be put on the stream; upkeep will')
    }
  }
}
