/**
 * Previews: what a revocation would do, before anybody asks for it. Nothing is written.
 *
 * It counts as acceptance does and reads along the same index; a preview that takes too long still counts, and one whose
 * count takes too long still gives a token: in an incident the answer "at least none" must not stand in the way.
 */
import { kills } from '../client/kills.ts'
import type { Containment, RevocationScope } from '../model.ts'
import { sqlState } from '../store/postgres-failures.ts'
import type { Database } from '../store/postgres.ts'
import { meansSession, readCutoff, readImpact } from '../store/revocation-preview.ts'
import type { Impact } from '../store/revocation-preview.ts'
import { MOST_COUNTED } from './accept-revocation.ts'
import { rulesOf } from './containment.ts'
import type { CountRevocation } from './count-revocation.ts'
import type { RuleTarget } from './cutoff-rules.ts'
import type { Counted, PreviewTokens } from './preview-token.ts'
import { previewOf } from './revocation-asked.ts'
import type { Asker, RevocationAsked } from './revocation-asked.ts'

export interface RevocationPreview {
  readonly counted: Counted
  /** Null: it could not be found out in time. */
  readonly impact: Impact | null
  readonly containment: Containment
  /** Cutoff rules that would be set. */
  readonly rules: number
  /** The caller's own token would be refused from then on. */
  readonly includesCaller: boolean
  /** RFC 3339 UTC. */
  readonly cutoff: string
  readonly token: string
  readonly tokenExpiresMs: number
}

/** The token that the caller shows, as far as its end goes. */
export interface ShownToken {
  readonly sid: string | null
  readonly organizations: readonly string[]
  readonly bornMs: number
}

export type PreviewRevocation = (asked: { asker: Asker; asked: RevocationAsked; token: ShownToken }) => Promise<RevocationPreview>

const CANCELLED = '57014'

export const createPreviewRevocation = (deps: {
  /** With a longer time limit than requests have, and few connections: so many previews are made at once. */
  db: Database
  count: CountRevocation
  previewTokens: PreviewTokens
}): PreviewRevocation => async ({ asker, asked, token: shown }) => {
  const { db, count, previewTokens } = deps
  const scope = { issuers: asker.issuers, reach: asker.reach, filter: asked.filter, exclude: asked.exclude }
  const cutoff = await readCutoff(db, asked.filter.bornBefore)
  const counted = await count(scope, MOST_COUNTED)
  const impact = await readImpact(db, { ...scope, cutoff }, MOST_COUNTED).catch((error: unknown) => {
    if (sqlState(error) === CANCELLED) return null
    throw error
  })
  const targets = rulesOf(scope)
  const { issuer, subject } = asker.actor
  const includesCaller =
    (targets ?? []).some((target) => isKilled({ ...scope, cutoff }, target, { ...shown, issuer, subject }))
    || (shown.sid !== null && (await meansSession(db, { ...scope, cutoff }, { issuer, sid: shown.sid })))
  const { token, expiresMs: tokenExpiresMs } = previewTokens.issue(counted, previewOf(asker, asked))
  return { counted, impact, containment: targets === null ? 'rows' : 'rules', rules: targets?.length ?? 0, includesCaller, cutoff, token, tokenExpiresMs }
}

/** As the rule would judge it. */
const isKilled = (
  { exclude, cutoff }: RevocationScope,
  target: RuleTarget,
  { issuer, subject, sid, organizations, bornMs }: ShownToken & { issuer: string; subject: string },
): boolean => {
  const rule = { ...target, id: '', cutoffMs: Date.parse(cutoff), excludeUsers: exclude.userIds, excludeSessions: exclude.sessionIds, expiresMs: Infinity }
  return [null, ...organizations].some((organization) => kills(rule, { issuer, organization, user: subject, sessionId: sid, bornMs }))
}
