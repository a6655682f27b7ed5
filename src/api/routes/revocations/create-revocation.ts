/** `POST /v1/revocations`: a preview, or a revocation accepted (DESIGN §7). */
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { CurfewError } from '../../../errors.ts'
import type { AcceptRevocation } from '../../../termination/accept-revocation.ts'
import type { PreviewRevocation, RevocationPreview } from '../../../termination/preview-revocation.ts'
import { errorAnswers } from '../../documented-errors.ts'
import { REVOCATION_BODY_BYTES, askedOf, revocationBody } from '../../revocation-fields.ts'
import { previewAnswer, renderPreview } from '../../revocation-preview-view.ts'
import { askerOf } from '../../revocation-viewer.ts'
import { locationOf, operationAnswer, renderOperation } from '../../revocation-view.ts'

export interface CreateRevocationDeps {
  readonly accept: AcceptRevocation
  readonly preview: PreviewRevocation
}

const KEY_RULE = 'Idempotency-Key must have 1 to 200 printable ASCII characters'

/** The key of a header, quoted as the draft standard has it (a structured string) or plain; null where there is none. */
const idempotencyKeyOf = (header: string | string[] | undefined): string | null => {
  if (header === undefined) return null
  const key = typeof header === 'string' ? header.trim().replace(/^"(.*)"$/, '$1') : ''
  if (!/^[\x21-\x7e]{1,200}$/.test(key)) throw new CurfewError('invalid_argument', { says: KEY_RULE })
  return key
}

export const createRevocationRoute: FastifyPluginAsyncZod<CreateRevocationDeps> = async (app, { accept, preview }) => {
  app.post('/v1/revocations', {
    bodyLimit: REVOCATION_BODY_BYTES,
    schema: {
      tags: ['revocations'],
      summary: 'End many sessions, or preview it',
      description:
        'Permission `revocation.write`, judged now and not again; who holds it in organizations reaches nothing beyond them, whatever the filter says. A filter of '
        + 'organizations, users, `all` and `bornBefore` alone is in force with the answer, by cutoff rules; sessions are then ended in the '
        + 'background. Above `PREVIEW_THRESHOLD` sessions it needs the `previewToken` of a preview of the same body. With an '
        + '`Idempotency-Key` a repeat gives the same revocation for 24 hours.',
      headers: z.object({ 'idempotency-key': z.string().optional().describe(KEY_RULE) }),
      body: revocationBody,
      response: {
        200: previewAnswer.meta({ description: 'The preview that `validateOnly` asked for' }),
        202: operationAnswer.meta({ description: 'Accepted: it will be carried out to the end. `Location` is where to watch it' }),
        ...errorAnswers('permission_denied', 'invalid_argument', 'preview_required', 'preview_drift', 'idempotency_conflict', 'body_too_large'),
      },
    },
    handler: async (request, reply) => {
      const { caller, body, headers } = request
      const asker = askerOf(caller)
      const asked = askedOf(body)
      const idempotencyKey = idempotencyKeyOf(headers['idempotency-key'])
      if (body.validateOnly) {
        const previewed: RevocationPreview = await preview({ asker, asked, token: caller })
        return reply.status(200).send(renderPreview(previewed))
      }
      const revocation = await accept({ asker, asked, previewToken: body.previewToken ?? null, idempotencyKey })
      return reply.status(202).header('location', locationOf(revocation.id)).send(renderOperation(revocation))
    },
  })
}
