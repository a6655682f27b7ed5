/**
 * Revocations as the API serves them: previewed, accepted, read, steered. The engine that carries them out is a worker's.
 */
import type { RevocationRoutesDeps } from '../api/routes/revocations/revocation-routes.ts'
import type { Database } from '../store/postgres.ts'
import { listRevocations, readRevocations } from '../store/revocation-list.ts'
import { readVisibleRevocation } from '../store/revocations.ts'
import { createAcceptLogOut } from '../termination/accept-log-out.ts'
import type { AcceptLogOut } from '../termination/accept-log-out.ts'
import { createAcceptRevocation } from '../termination/accept-revocation.ts'
import { createCountRevocation } from '../termination/count-revocation.ts'
import { createSetRules } from '../termination/cutoff-rules.ts'
import { createPreviewTokens } from '../termination/preview-token.ts'
import { createPreviewRevocation } from '../termination/preview-revocation.ts'
import { createRedeliverRevocation } from '../termination/redeliver-revocation.ts'
import { createSteerRevocation } from '../termination/steer-revocation.ts'

export interface RevocationServiceDeps {
  readonly db: Database
  /**
   * For looking at many sessions: with a longer time limit and few connections, so that it keeps nothing else waiting; and
   * apart for callers of organizations, so that none of these can keep whoever answers for the instance from revoking.
   */
  readonly previews: { readonly instance: Database; readonly organizations: Database }
  readonly secrets: { readonly secret: Uint8Array; readonly secretPrevious: Uint8Array | null }
  readonly lifetimes: { readonly maxLifetimeSeconds: number; readonly maxTokenLifetimeSeconds: number }
  readonly previewThreshold: number
  /** Best effort, never throw: upkeep finds what they miss. */
  readonly wakeBulk: (revocationId: string) => void
  readonly wakeRoute: () => void
  readonly wakeReceiver: (receiverId: string) => void
  readonly horizonSeconds: number
  readonly announceRules: () => Promise<void>
}

export interface RevocationService {
  readonly routes: Omit<RevocationRoutesDeps, 'refuseDeadToken'>
  readonly acceptLogOut: AcceptLogOut
}

export const createRevocationService = (deps: RevocationServiceDeps): RevocationService => {
  const { db, previews, wakeBulk, announceRules } = deps
  const previewTokens = createPreviewTokens({ ...deps.secrets, now: Date.now })
  const counts = { own: createCountRevocation({ db }), organizations: createCountRevocation({ db: previews.organizations }) }
  const previewBy = (by: Database) => createPreviewRevocation({ db: by, count: createCountRevocation({ db: by }), previewTokens })
  const preview = { instance: previewBy(previews.instance), organizations: previewBy(previews.organizations) }
  return {
    routes: {
      accept: createAcceptRevocation({
        db,
        count: (scope, most) => counts[scope.reach === 'instance' ? 'own' : 'organizations'](scope, most),
        setRules: createSetRules(deps.lifetimes),
        previewTokens,
        previewThreshold: deps.previewThreshold,
        wake: wakeBulk,
        announceRules,
        now: Date.now,
      }),
      preview: (asked) => preview[asked.asker.reach === 'instance' ? 'instance' : 'organizations'](asked),
      list: (asked) => listRevocations(db, asked),
      read: (asked) => readVisibleRevocation(db, asked),
      readRevocations: (ids) => readRevocations(db, ids),
      steer: createSteerRevocation({
        db,
        wake: (revocationId) => {
          wakeBulk(revocationId)
          deps.wakeRoute()
        },
      }),
      redeliver: createRedeliverRevocation({ db, horizonSeconds: deps.horizonSeconds, wakeReceiver: deps.wakeReceiver }),
    },
    acceptLogOut: createAcceptLogOut({ db, wake: wakeBulk, now: Date.now }),
  }
}
