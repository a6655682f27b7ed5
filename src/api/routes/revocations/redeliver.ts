/** `POST /v1/revocations/{id}:redeliver`: what its receivers were not told is due again (DESIGN §9). */
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { reachOf } from '../../../auth/caller.ts'
import { CurfewError } from '../../../errors.ts'
import { deadStates } from '../../../store/redelivery.ts'
import type { RedeliverRevocation } from '../../../termination/redeliver-revocation.ts'
import type {} from '../../caller.ts'
import { errorAnswers } from '../../documented-errors.ts'
import { isRevocationId, notSeen, viewerOf } from '../../revocation-viewer.ts'
import { verbPath } from '../../verb-path.ts'

export interface RedeliverRevocationDeps {
  readonly redeliver: RedeliverRevocation
}

export const redeliverRevocationRoute: FastifyPluginAsyncZod<RedeliverRevocationDeps> = async (app, { redeliver }) => {
  app.post(verbPath('/v1/revocations/', 'redeliver'), {
    schema: {
      tags: ['revocations'],
      summary: 'Send a revocation’s dead letters again',
      description:
        'Permission `revocation.write` for all that the revocation reaches. Repeat-safe. They are due anew, in line where its notifications '
        + 'are paced, and held while they are paused; also those that were cancelled. Those whose session and tokens have expired by '
        + 'themselves meanwhile are left; `state: "moot"` asks for deliveries that were not sent for that reason.',
      params: z.object({ id: z.string().max(200) }),
      body: z.strictObject({ state: z.enum(deadStates).default('failed') }).nullish(),
      response: {
        200: z
          .object({ redelivered: z.uint32(), more: z.boolean().describe('There are more than one call sends again: call once more') })
          .meta({ description: 'How many are due now', examples: [{ redelivered: 17, more: false }] }),
        ...errorAnswers('permission_denied', 'revocation_not_found', 'invalid_argument'),
      },
    },
    handler: async ({ caller, params: { id }, body }) => {
      if (!isRevocationId(id)) throw notSeen(caller)
      return redeliver({ id, state: body?.state ?? 'failed', viewer: viewerOf(caller), writes: reachOf(caller, 'revocation.write') }).catch((error: unknown) => {
        throw error instanceof CurfewError && error.kind === 'revocation_not_found' ? notSeen(caller) : error
      })
    },
  })
}
