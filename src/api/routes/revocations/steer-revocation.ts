/** `POST /v1/revocations/{id}:pause`, `:resume` and `:cancel`. */
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { reachOf } from '../../../auth/caller.ts'
import { CurfewError } from '../../../errors.ts'
import { revocationParts, steeringVerbs } from '../../../termination/revocation.ts'
import type { SteeringVerb } from '../../../termination/revocation.ts'
import type { SteerRevocation } from '../../../termination/steer-revocation.ts'
import type {} from '../../caller.ts'
import { errorAnswers } from '../../documented-errors.ts'
import { isRevocationId, notSeen, viewerOf } from '../../revocation-viewer.ts'
import { operationAnswer, renderOperation } from '../../revocation-view.ts'
import { verbPath } from '../../verb-path.ts'

export interface SteerRevocationDeps {
  readonly steer: SteerRevocation
}

const summaries = {
  pause: 'Stop ending sessions and telling receivers for now',
  resume: 'Go on with what is paused',
  cancel: 'Stop for good; what has ended stays ended, and what was told stays told',
} as const satisfies Record<SteeringVerb, string>

export const steerRevocationRoute: FastifyPluginAsyncZod<SteerRevocationDeps> = async (app, { steer }) => {
  for (const verb of steeringVerbs) {
    app.post(verbPath('/v1/revocations/', verb), {
      schema: {
        tags: ['revocations'],
        summary: summaries[verb],
        description:
          'Permission `revocation.write` for all that the revocation reaches. Repeat-safe. Where cutoff rules are in force or all sessions '
          + 'have ended, terminations can be neither paused nor cancelled; notifications can.',
        params: z.object({ id: z.string().max(200) }),
        body: z.strictObject({ only: z.enum(revocationParts).nullish().describe('Absent: both') }).nullish(),
        response: { 200: operationAnswer, ...errorAnswers('permission_denied', 'revocation_not_found', 'revocation_not_steerable', 'invalid_argument') },
      },
      handler: async ({ caller, params, body }) => {
        if (!isRevocationId(params.id)) throw notSeen(caller)
        const asked = { id: params.id, verb, only: body?.only ?? null, viewer: viewerOf(caller), writes: reachOf(caller, 'revocation.write') }
        const steered = await steer(asked).catch((error: unknown) => {
          throw error instanceof CurfewError && error.kind === 'revocation_not_found' ? notSeen(caller) : error
        })
        return renderOperation(steered)
      },
    })
  }
}
