/**
 * `GET /v1/revocations/{id}/progress`: server-sent events, for a bar that moves.
 *
 * `progress` comes at once, then when something has changed, once a second at most, and now and then where nothing has.
 * `done` comes last, when its sessions have ended and nobody is still to be told, and then the answer ends. A caller that reads slowly gets the newest, not all of it. A connection
 * ends after some minutes, so that its token is checked anew, and a browser comes back by itself.
 */
import { Readable } from 'node:stream'
import type { FastifyInstance, FastifyReply } from 'fastify'
import { z } from 'zod'
import { CurfewError } from '../../../errors.ts'
import type { Revocation, Viewer } from '../../../store/revocations.ts'
import { withoutHead } from '../../allowed-methods.ts'
import type { Caller } from '../../caller.ts'
import { errorAnswers } from '../../documented-errors.ts'
import { renderOperation } from '../../revocation-view.ts'
import { MAX_WATCHERS } from '../../revocation-watch.ts'
import type { RevocationWatch, Sight } from '../../revocation-watch.ts'
import { readSeen } from './read-revocation.ts'

export interface RevocationProgressDeps {
  readonly read: (asked: { id: string; viewer: Viewer }) => Promise<Revocation | null>
  readonly watch: RevocationWatch
  /** Throws where the session of the caller's own token has ended. */
  readonly refuseDeadToken: (caller: Caller) => void | Promise<void>
}

const EVERY_MS = 1_000
/** So that nobody on the way takes the connection for dead; and the session of the caller's token is looked at. */
const SILENT_MS = 5_000
/** Half of it is chance: not all come back at once. */
const CONNECTION_MS = 300_000

/** Aborted when the caller has gone, or after a while. */
const whenGone = (reply: FastifyReply, limitMs: number): AbortSignal => {
  const controller = new AbortController()
  const timer = setTimeout(() => controller.abort(), limitMs)
  reply.raw.once('close', () => controller.abort())
  controller.signal.addEventListener('abort', () => clearTimeout(timer))
  return controller.signal
}

const progressOf = ({ revocation, ...pace }: Sight): string => `event: progress\ndata: ${JSON.stringify({ ...renderOperation(revocation), ...pace })}\n\n`

const DONE = 'event: done\ndata: {}\n\n'

/** Nothing of it will change any more by itself. */
const isSettled = ({ revocation: { state, told } }: Sight): boolean => told && (state === 'done' || state === 'cancelled')

export const revocationProgressRoute = async (app: FastifyInstance, { read, watch, refuseDeadToken }: RevocationProgressDeps): Promise<void> => {
  async function* events(id: string, caller: Caller, gone: AbortSignal): AsyncGenerator<string> {
    let newest: Sight | null = null
    let wake = (): void => {}
    const watching = watch.watch(id, {
      onSight: (sight) => {
        newest = sight
        wake()
      },
      onStop: () => stop(),
    })
    // Also where nothing is read: Postgres may be away for a while.
    const ticking = setInterval(() => wake(), EVERY_MS)
    let isWanted = !gone.aborted
    const stop = (): void => {
      isWanted = false
      wake()
    }
    gone.addEventListener('abort', stop)
    let told = ''
    let toldMs = performance.now() - EVERY_MS
    try {
      while (isWanted && watching !== null) {
        const sight = newest as Sight | null
        if (sight !== null && isSettled(sight)) {
          yield progressOf(sight) + DONE
          return
        }
        const text = sight === null ? ':\n\n' : progressOf(sight)
        const silentMs = performance.now() - toldMs
        if (silentMs >= (sight === null || text === told ? SILENT_MS : EVERY_MS)) {
          if (!(await isGood(caller))) return
          told = text
          toldMs = performance.now()
          yield text
        }
        if (newest === sight && isWanted) {
          await new Promise<void>((resolve) => {
            wake = resolve
          })
        }
      }
    } finally {
      clearInterval(ticking)
      watching?.leave()
    }
  }

  /** False where its session has ended, or that cannot be said: it may come back with a token and be told. */
  const isGood = async (caller: Caller): Promise<boolean> => {
    try {
      await refuseDeadToken(caller)
      return true
    } catch {
      return false
    }
  }

  app.get<{ Params: { id: string } }>('/v1/revocations/:id/progress', {
    ...withoutHead,
    schema: {
      tags: ['revocations'],
      summary: 'How far a revocation is, as server-sent events',
      description:
        'Who may read the revocation. Events `progress`, once a second at most, each with the revocation, its `rate` in sessions and its '
        + '`deliveryRate` per second and its `secondsLeft`, null while not known; and last `done`, once nothing is left to be ended or told.',
      params: z.object({ id: z.string().max(200) }),
      response: {
        200: z.string().meta({ description: 'text/event-stream' }),
        ...errorAnswers('permission_denied', 'revocation_not_found', 'overloaded'),
      },
    },
    handler: async ({ caller, params }, reply) => {
      const { id } = await readSeen(read, caller, params.id)
      if (watch.watchers() >= MAX_WATCHERS) throw new CurfewError('overloaded')
      const text = events(id, caller, whenGone(reply, CONNECTION_MS * (0.5 + Math.random() / 2)))
      return reply
        .header('content-type', 'text/event-stream; charset=utf-8')
        .header('x-accel-buffering', 'no')
        .send(Readable.from(text, { objectMode: false }))
    },
  })
}
