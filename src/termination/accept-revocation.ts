/**
 * A revocation is accepted: from its commit on it is carried out to the end, whatever is lost meanwhile.
 *
 * One transaction claims the idempotency key, writes the revocation and sets its cutoff rules, in this order, because
 * others who set rules wait for its end. So a rule is in force if and only if there is a revocation that says why. What
 * matches is counted before: it decides whether a preview is needed, and whether it still holds.
 */
import { createHash } from 'node:crypto'
import { CurfewError } from '../errors.ts'
import type { RevocationScope } from '../model.ts'
import { claimIdempotencyKey, readIdempotencyKey } from '../store/idempotency-keys.ts'
import type { IdempotencyKey } from '../store/idempotency-keys.ts'
import { changedNothing } from '../store/postgres-failures.ts'
import type { Database } from '../store/postgres.ts'
import { insertRevocation, readRevocation } from '../store/revocations.ts'
import type { NewRevocation, Revocation } from '../store/revocations.ts'
import { rulesOf } from './containment.ts'
import type { createSetRules } from './cutoff-rules.ts'
import type { Counted, PreviewTokens } from './preview-token.ts'
import { previewOf } from './revocation-asked.ts'
import type { Asker, RevocationAsked } from './revocation-asked.ts'
import { uuidV7 } from './uuid-v7.ts'

export interface AcceptRevocationDeps {
  readonly db: Database
  /** Counts what matches, up to `most`. Says "at least none" where that cannot be found out in time. */
  readonly count: (scope: Omit<RevocationScope, 'cutoff'>, most: number) => Promise<Counted>
  readonly setRules: ReturnType<typeof createSetRules>
  readonly previewTokens: PreviewTokens
  /** More sessions than this need a preview. */
  readonly previewThreshold: number
  /** Tells the engine that there is work; best effort, never throws. */
  readonly wake: (revocationId: string) => void
  /** Tells whoever holds rules in memory; best effort. */
  readonly announceRules: () => Promise<void>
  readonly now: () => number
}

export interface AcceptAsked {
  readonly asker: Asker
  readonly asked: RevocationAsked
  readonly previewToken: string | null
  readonly idempotencyKey: string | null
}

export type AcceptRevocation = (asked: AcceptAsked) => Promise<Revocation>

/** As exact as a preview; a fraction of a second. */
export const MOST_COUNTED = 100_000

/** Part by which the number of sessions may have moved since the preview. */
const DRIFT = 0.1

const OTHER_REQUEST = 'Idempotency-Key was used with another body, or where something else was reached'

const ROUTE = 'POST /v1/revocations'

/**
 * @throws CurfewError preview_required, preview_drift, idempotency_conflict. Nothing is accepted then.
 */
export const createAcceptRevocation = (deps: AcceptRevocationDeps): AcceptRevocation => {
  const { db, previewTokens, previewThreshold } = deps

  const countAgain = async ({ asker, asked, previewToken }: AcceptAsked): Promise<Counted> => {
    const seen = previewToken === null ? null : previewTokens.open(previewToken, previewOf(asker, asked))
    if (previewToken !== null && seen === null) {
      throw new CurfewError('preview_required', { says: 'previewToken is of another request or caller, or older than ten minutes: take a new preview' })
    }
    // Enough to say for certain whether it has grown too much.
    const most = Math.max(MOST_COUNTED, Math.ceil((seen?.count ?? 0) * (1 + DRIFT)) + 1)
    const counted = await deps.count({ ...asker, filter: asked.filter, exclude: asked.exclude }, most)
    if (seen === null && (counted.count > previewThreshold || !counted.exact)) throw new CurfewError('preview_required')
    if (seen !== null && hasDrifted(seen, counted)) throw new CurfewError('preview_drift')
    return counted
  }

  /** What was accepted under this key, or null. */
  const readAccepted = async (key: IdempotencyKey | null, requestHash: Buffer): Promise<Revocation | null> => {
    const before = key === null ? null : await readIdempotencyKey(db, key)
    if (before === null) return null
    if (!before.requestHash.equals(requestHash)) throw new CurfewError('idempotency_conflict', { says: OTHER_REQUEST })
    return readRevocation(db, before.revocationId)
  }

  /** False where the key was claimed by somebody else meanwhile. */
  const commit = async (key: IdempotencyKey | null, requestHash: Buffer, revocation: NewRevocation & { reason: string }): Promise<boolean> => {
    const { id, exclude, actor, reason } = revocation
    const targets = revocation.containment === 'rules' ? rulesOf(revocation) ?? [] : []
    return db.$transaction(async (tx) => {
      if (key !== null && !(await claimIdempotencyKey(tx, { ...key, requestHash, revocationId: id }))) return false
      const { cutoff } = await insertRevocation(tx, revocation)
      const terms = { bornBefore: cutoff, excludeUsers: exclude.userIds, excludeSessions: exclude.sessionIds, reason, actor, revocationId: id }
      if (targets.length > 0) await deps.setRules(tx, { ...terms, targets })
      return true
    })
  }

  return async (request) => {
    const { asker, asked } = request
    // Asked with another reach it would be another revocation.
    const requestHash = createHash('sha256').update(previewOf(asker, asked)).digest()
    const key = request.idempotencyKey === null ? null : { actor: asker.actor, route: ROUTE, key: request.idempotencyKey }
    const before = await readAccepted(key, requestHash)
    if (before !== null) return before
    const { count, exact } = await countAgain(request)
    const revocation = {
      ...asked, ...asker, id: uuidV7(deps.now()), expected: count, expectedExact: exact, reachesBorn: null,
      containment: rulesOf({ ...asker, filter: asked.filter, exclude: asked.exclude }) === null ? 'rows' as const : 'rules' as const,
    }
    const claimed = await commit(key, requestHash, revocation).catch(async (error: unknown) => {
      // Of unknown outcome: what is there was committed, and its id is nobody else's.
      if (changedNothing(error) || (await readRevocation(db, revocation.id)) === null) throw error
      return true
    })
    const accepted = claimed ? await readRevocation(db, revocation.id) : await readAccepted(key, requestHash)
    if (accepted === null) throw new CurfewError('unavailable')
    deps.wake(accepted.id)
    if (accepted.containment === 'rules') await deps.announceRules()
    return accepted
  }
}

/** Where a count is not exact, only what is certain counts. */
const hasDrifted = (seen: Counted, now: Counted): boolean => {
  const tooMany = seen.exact && now.count > seen.count * (1 + DRIFT)
  const tooFew = now.exact && now.count < seen.count * (1 - DRIFT)
  return tooMany || tooFew
}
