/** `/v1/revocations`: many sessions ended by one decision (DESIGN §7). */
import type { FastifyInstance } from 'fastify'
import { createRevocationWatch } from '../../revocation-watch.ts'
import type { RevocationWatchDeps } from '../../revocation-watch.ts'
import { createRevocationRoute } from './create-revocation.ts'
import type { CreateRevocationDeps } from './create-revocation.ts'
import { listRevocationsRoute } from './list-revocations.ts'
import type { ListRevocationsDeps } from './list-revocations.ts'
import { readRevocationRoute } from './read-revocation.ts'
import type { ReadRevocationDeps } from './read-revocation.ts'
import { redeliverRevocationRoute } from './redeliver.ts'
import type { RedeliverRevocationDeps } from './redeliver.ts'
import { revocationProgressRoute } from './revocation-progress.ts'
import type { RevocationProgressDeps } from './revocation-progress.ts'
import { steerRevocationRoute } from './steer-revocation.ts'
import type { SteerRevocationDeps } from './steer-revocation.ts'

export interface RevocationRoutesDeps
  extends RevocationWatchDeps, CreateRevocationDeps, ListRevocationsDeps, SteerRevocationDeps, RedeliverRevocationDeps, Omit<ReadRevocationDeps & RevocationProgressDeps, 'watch'> {}

export const revocationRoutes = async (app: FastifyInstance, deps: RevocationRoutesDeps): Promise<void> => {
  const watch = createRevocationWatch(deps)
  app.addHook('preClose', (done) => {
    watch.stop()
    done()
  })
  await app.register(createRevocationRoute, deps)
  await app.register(listRevocationsRoute, deps)
  await app.register(steerRevocationRoute, deps)
  await app.register(redeliverRevocationRoute, deps)
  await app.register(readRevocationRoute, { ...deps, watch })
  await app.register(revocationProgressRoute, { ...deps, watch })
}
