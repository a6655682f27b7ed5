/**
 * The errors of a route for its OpenAPI entry, from the one table of errors: status, shape and an example of each.
 * What every protected route can answer is added by `openapi.ts`; a route names only its own.
 */
import { z } from 'zod'
import { CurfewError, errorKinds } from '../errors.ts'
import type { ErrorName } from '../errors.ts'

const errorShape = z.object({
  code: z.uint32().describe('google.rpc.Code'),
  message: z.string(),
  details: z
    .array(z.object({ '@type': z.string(), id: z.string(), message: z.string() }))
    .optional()
    .describe('Absent where the error has no stable id'),
})

/** What can happen to any request that must say who asks. */
export const commonErrors = [
  'auth_header_missing',
  'auth_header_malformed',
  'token_invalid',
  'invalid_argument',
  'too_many_requests',
  'overloaded',
  'unavailable',
  'internal',
] as const satisfies readonly ErrorName[]

/** `response` schemas by status, each with one example for each kind of error that has this status. */
export const errorAnswers = (...names: readonly ErrorName[]): Record<number, z.ZodType> => {
  const byStatus = new Map<number, ErrorName[]>()
  for (const name of new Set(names)) {
    const { status } = errorKinds[name]
    byStatus.set(status, [...(byStatus.get(status) ?? []), name])
  }
  return Object.fromEntries(
    [...byStatus].map(([status, kinds]) => [
      status,
      errorShape.meta({
        description: [...new Set(kinds.map((kind) => errorKinds[kind].says))].join('; '),
        examples: kinds.map((kind) => new CurfewError(kind).body()),
      }),
    ]),
  )
}
