/**
 * Follows a revocation to its end: the progress that Curfew sends, through lost connections and restarts of Curfew.
 * A revocation needs nobody who watches it.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { z } from 'zod'
import { eventsOf } from '../client/lines.ts'
import { idOf, readOperation } from './operation.ts'
import type { Operation } from './operation.ts'
import type { Progress } from './progress-bar.ts'
import { RemoteError } from './remote.ts'
import type { Remote } from './remote.ts'

/** Curfew says something each few seconds; a connection that is silent for so long is gone. */
const SILENT_MS = 20_000
const PAUSE_MS = 1_000
/** A deployment takes less; after that somebody should look. */
const AWAY_MS = 300_000

const pace = z.object({ rate: z.number().nullable(), secondsLeft: z.number().nullable() }).catch({ rate: null, secondsLeft: null })

const progressOf = (value: unknown): Progress => ({ revocation: readOperation(value), ...pace.parse(value) })

/**
 * Resolves with the revocation as it is when it is over, or when it is no longer wanted.
 *
 * @param until `ended`: its sessions are ended; `told`: and whoever is to be told has been.
 * @throws RemoteError where it cannot be seen, or Curfew stays away.
 */
export const follow = async (
  remote: Remote,
  { id, until, show, isWanted = () => true }: { id: string; until: 'ended' | 'told'; show: (progress: Progress) => void; isWanted?: () => boolean },
): Promise<Operation> => {
  let heardMs = performance.now()
  for (;;) {
    try {
      const last = await hear(remote, id, (progress) => {
        heardMs = performance.now()
        show(progress)
        return !isWanted() || (until === 'ended' && progress.revocation.done)
      })
      if (last !== null) return last
    } catch (error) {
      const isFinal = error instanceof RemoteError && error.status !== null && error.status < 500
      if (isFinal || performance.now() - heardMs > AWAY_MS) throw error
    }
    await pause(PAUSE_MS)
  }
}

/** One connection. Resolves with the revocation where it is over, with null where the connection ended before. */
const hear = async (remote: Remote, id: string, isEnough: (progress: Progress) => boolean): Promise<Operation | null> => {
  const controller = new AbortController()
  const silent = () => controller.abort(new Error('Nothing was heard'))
  let timer = setTimeout(silent, SILENT_MS)
  let last: Operation | null = null
  try {
    const body = await remote.open({ path: `/v1/revocations/${id}/progress`, accept: 'text/event-stream', signal: controller.signal })
    for await (const { event, data } of eventsOf(body)) {
      clearTimeout(timer)
      timer = setTimeout(silent, SILENT_MS)
      if (event === 'done') return last
      if (event !== 'progress') continue
      const progress = progressOf(JSON.parse(data))
      last = progress.revocation
      if (isEnough(progress)) return last
    }
    return null
  } finally {
    clearTimeout(timer)
    controller.abort()
  }
}

/** What is to be done about a revocation from now on, where somebody stops watching it. */
export const watchLater = (revocation: Operation): string => `It goes on. To see how far it is: npx curfew revocations watch ${idOf(revocation)}`
