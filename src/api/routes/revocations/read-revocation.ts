/** `GET /v1/revocations/{id}`, at once or when it is done: `?wait=30s`. */
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import type { Revocation, Viewer } from '../../../store/revocations.ts'
import type { Caller } from '../../caller.ts'
import { errorAnswers } from '../../documented-errors.ts'
import { isRevocationId, notSeen, viewerOf } from '../../revocation-viewer.ts'
import { operationAnswer, renderOperation } from '../../revocation-view.ts'
import type { RevocationWatch } from '../../revocation-watch.ts'

export interface ReadRevocationDeps {
  readonly read: (asked: { id: string; viewer: Viewer }) => Promise<Revocation | null>
  readonly watch: RevocationWatch
}

/** As long as the longest answer that is held for a DELETE. */
const MAX_WAIT_SECONDS = 30

const isOver = ({ state }: Pick<Revocation, 'state'>): boolean => state === 'done' || state === 'cancelled'

/** What the caller sees. @throws CurfewError revocation_not_found, permission_denied. */
export const readSeen = async (read: ReadRevocationDeps['read'], caller: Caller, id: string): Promise<Revocation> => {
  const revocation = isRevocationId(id) ? await read({ id, viewer: viewerOf(caller) }) : null
  if (revocation === null) throw notSeen(caller)
  return revocation
}

export const readRevocationRoute: FastifyPluginAsyncZod<ReadRevocationDeps> = async (app, { read, watch }) => {
  /** Resolves when it is over, the time is, the caller has gone, or too many wait already. */
  const untilOver = (id: string, { waitMs, gone }: { waitMs: number; gone: (leave: () => void) => void }): Promise<void> =>
    new Promise((resolve) => {
      const timer = setTimeout(() => end(), waitMs)
      const watching = watch.watch(id, {
        onSight: ({ revocation }) => {
          if (isOver(revocation)) end()
        },
        onStop: () => end(),
      })
      const end = (): void => {
        clearTimeout(timer)
        watching?.leave()
        resolve()
      }
      gone(end)
      if (watching === null) end()
    })

  app.get('/v1/revocations/:id', {
    schema: {
      tags: ['revocations'],
      summary: 'One revocation, its state and its counts',
      description:
        'For who asked for it, and with `revocation.read` for all that it reaches. The counts are exact at this moment. `wait` holds the '
        + 'answer until it is done or cancelled, or the time is over.',
      params: z.object({ id: z.string().max(200) }),
      querystring: z.object({
        wait: z
          .string()
          .regex(/^\d{1,4}s?$/, 'must be seconds, for example "30s"')
          .transform((sent) => Math.min(Number.parseInt(sent, 10), MAX_WAIT_SECONDS))
          .optional()
          .describe(`Seconds, ${MAX_WAIT_SECONDS} at most`),
      }),
      response: { 200: operationAnswer, ...errorAnswers('permission_denied', 'revocation_not_found') },
    },
    handler: async ({ caller, params, query }, reply) => {
      const revocation = await readSeen(read, caller, params.id)
      if (query.wait === undefined || query.wait === 0 || isOver(revocation)) return renderOperation(revocation)
      await untilOver(params.id, { waitMs: query.wait * 1_000, gone: (leave) => reply.raw.once('close', leave) })
      return renderOperation(await readSeen(read, caller, params.id))
    },
  })
}
