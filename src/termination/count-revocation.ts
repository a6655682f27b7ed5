/** How many sessions a revocation would end, found out within a bound of sessions and of time. */
import type { RevocationScope } from '../model.ts'
import { sqlState } from '../store/postgres-failures.ts'
import type { Database } from '../store/postgres.ts'
import { countMatching } from '../store/revocation-filter.ts'
import { readCutoff } from '../store/revocation-preview.ts'
import type { Counted } from './preview-token.ts'

export type CountRevocation = (scope: Omit<RevocationScope, 'cutoff'>, most: number) => Promise<Counted>

/** Of the pool's own time limit: what takes longer is "at least none", which is true, and needs a preview. */
const CANCELLED = '57014'

/** Counts up to `most`. A filter that Postgres cannot count in time must not keep anyone from revoking. */
export const createCountRevocation = ({ db }: { db: Database }): CountRevocation => async (scope, most) => {
  const cutoff = await readCutoff(db, scope.filter.bornBefore)
  return countMatching(db, { ...scope, cutoff }, most).catch((error: unknown) => {
    if (sqlState(error) === CANCELLED) return { count: 0, exact: false }
    throw error
  })
}
