/**
 * Counts attempts to use what is dead, as this process meets them, and records the sums each second or so. A process
 * that is killed takes the last ones with it: the counts are lower bounds.
 */
import { createAttempts } from '../client/attempts.ts'
import type { AttemptOnTheWire } from '../client/wire.ts'
import type { Death } from '../store/authorization.ts'
import type { DeadUse } from '../store/dead-uses.ts'
import type { Log } from '../telemetry.ts'

/** An incident responder looks at the number while it grows. */
const EVERY_MS = 1_000

const deadUseOf = ({ issuer, sessionId, ruleId, count }: AttemptOnTheWire): DeadUse =>
  ruleId === undefined ? { by: 'session', id: sessionId ?? '', issuer, count } : { by: 'rule', id: ruleId, issuer, count }

/** `stop` records what is left. Both never throw. */
export const createDeadUseCounter = (deps: { record: (uses: readonly DeadUse[]) => Promise<void>; log: Pick<Log, 'warn'> }) => {
  const { record, log } = deps
  const attempts = createAttempts({
    report: (batch) => record(batch.map(deadUseOf)),
    onError: (err) => log.warn({ event: 'attempts.unrecorded', err }, 'attempts to use what is dead could not be counted'),
    everyMs: EVERY_MS,
  })
  return {
    count: ({ by, issuer, id }: Death): void => (by === 'rule' ? attempts.countRule(issuer, id) : attempts.countSession(issuer, id)),
    stop: attempts.stop,
  }
}
