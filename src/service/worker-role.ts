/**
 * The worker role: commits batches, plans deliveries, delivers, and looks after what was missed.
 */
import { createDeliver } from '../delivery/deliver.ts'
import { createKeepStream } from '../outbox/keep-stream.ts'
import { createRouteRevocations } from '../outbox/route-revocations.ts'
import { createRouteSoon } from '../outbox/route-soon.ts'
import { createRoute } from '../outbox/route.ts'
import { createWorkers } from '../queue/workers.ts'
import { refreshRulePlans } from '../store/cutoff-rules.ts'
import { readInteractiveAge } from '../store/revocation-clocks.ts'
import { createPace } from '../termination/revoke-pace.ts'
import { createRevoke } from '../termination/revoke.ts'
import { createPruning } from '../upkeep/prune.ts'
import { createUpkeep } from '../upkeep/upkeep.ts'
import { remoteChannels } from './ground.ts'
import type { Ground, Part } from './ground.ts'

/** A chunk of a revocation takes a tenth of a second; longer where Postgres is busy, and nobody waits for it. */
const BULK_STATEMENT_MS = 30_000
/** At least: three chunks at once, a proof that waits for its turn, and the router. */
const BULK_CONNECTIONS = 5

/** Commits batches, plans deliveries, delivers, and looks after what was missed. */
export const createWorkerRole = ({ config, telemetry, backend, producer, database, stopping, router, terminate, enforcement, stream, signer, secrets }: Ground): Part[] => {
  const { log, metrics } = telemetry
  const background = database('worker')
  const wakeReceiver = (receiverId: string) => producer.wake('deliver', receiverId)
  const route = createRoute({ db: background, wakeReceiver, ...config.sessions, signal: stopping })
  const routeSoon = createRouteSoon({ route, log })
  router.wake = routeSoon.wake
  const deliver = createDeliver({
    db: background,
    channels: remoteChannels({ signer, secrets }),
    ...config.delivery,
    metrics,
    log,
  })
  const { maxLifetimeSeconds: maxSessionLifetimeSeconds, maxTokenLifetimeSeconds } = config.sessions
  const keepStream = createKeepStream({ db: background, stream, maxSessionLifetimeSeconds, maxTokenLifetimeSeconds, log })
  const bulk = database('bulk', { statementTimeoutMs: BULK_STATEMENT_MS, max: Math.max(BULK_CONNECTIONS, config.database.poolSize) })
  // Beside the router of log-outs, so that none of those waits for it; one chunk may concern very many participants.
  const routeRevocations = createRouteRevocations({ db: bulk, wakeReceiver, ...config.sessions, signal: stopping })
  const revocationsSoon = createRouteSoon({ route: routeRevocations, log })
  const pace = createPace({ readInteractiveAge: () => readInteractiveAge(background) })
  const revoke = createRevoke({
    db: bulk,
    pace,
    enforce: enforcement.enforceChunk,
    readRuleOnStream: async () => (stream === null ? null : (await stream.state()).rule),
    wakeRoute: revocationsSoon.wake,
    signal: stopping,
    log,
  })
  const upkeep = createUpkeep({
    db: background,
    route,
    wakeRevocations: revocationsSoon.wake,
    wakeReceiver,
    deliver: deliver.deliver,
    enforcePending: enforcement.enforcePending,
    enforceAgain: enforcement.enforceAgain,
    keepStream: keepStream.tick,
    takeUpRevocations: revoke.takeUp,
    refreshPlans: () => refreshRulePlans(background),
    depth: producer.depth,
    horizonSeconds: config.delivery.horizonSeconds,
    metrics,
    log,
  })
  const pruning = createPruning({
    db: background,
    deliverySeconds: config.delivery.retentionSeconds,
    sessionSeconds: config.sessions.retentionSeconds,
    maxTokenLifetimeSeconds: config.sessions.maxTokenLifetimeSeconds,
    log,
  })
  const workers = createWorkers({
    backend,
    secrets: config.queue,
    handlers: {
      interactive: (commands) => pace.during(() => terminate(commands)),
      // Whoever wakes it may have steered its notifications.
      bulk: (revocationId) => {
        revocationsSoon.wake()
        return revoke.advance(revocationId)
      },
      route,
      deliver: deliver.deliver,
    },
    metrics,
    log,
  })
  return [deliver, routeSoon, revocationsSoon, revoke, upkeep, pruning, workers]
}
