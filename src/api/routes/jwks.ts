/**
 * `GET /v1/issuers/{issuer}/jwks.json`: the public keys with which Curfew signs in an issuer's name, for the issuer to
 * publish in its own JWKS. Public, as every JWKS is; the issuer's URL stands percent-encoded in the path.
 */
import type { FastifyInstance } from 'fastify'
import { z } from 'zod'
import { CurfewError } from '../../errors.ts'
import { errorAnswers } from '../documented-errors.ts'

export interface JwksDeps {
  /** Issuers whose sessions are kept here. Any other is 404 without a query, because anybody may ask. */
  readonly issuers: ReadonlySet<string>
  /** Public keys: next, current and retired while they may still verify something. */
  readonly publicJwks: (issuer: string) => Promise<{ readonly keys: readonly object[] }>
}

/** Rotation publishes the next key long before it signs, so five minutes of caching never lack a key. */
const CACHE_SECONDS = 300

/** One query a second and issuer, however many ask. */
const REMEMBER_MS = 1_000

const jwksShape = z.object({ keys: z.array(z.looseObject({ kty: z.string(), kid: z.string() })) })

export const jwksRoutes = async (app: FastifyInstance, { issuers, publicJwks }: JwksDeps): Promise<void> => {
  // Bounded by the number of issuers.
  const remembered = new Map<string, { untilMs: number; text: Promise<string> }>()

  const read = (issuer: string): Promise<string> => {
    const found = remembered.get(issuer)
    if (found !== undefined && Date.now() < found.untilMs) return found.text
    const text = publicJwks(issuer).then((jwks) => JSON.stringify(jwks))
    remembered.set(issuer, { untilMs: Date.now() + REMEMBER_MS, text })
    // A failure is the askers' of that moment; the next one asks anew.
    text.catch(() => remembered.delete(issuer))
    return text
  }

  app.get<{ Params: { issuer: string } }>('/v1/issuers/:issuer/jwks.json', {
    schema: {
      tags: ['keys'],
      summary: 'Public keys that sign in an issuer’s name',
      security: [],
      params: z.object({ issuer: z.string().describe('The issuer’s URL, percent-encoded') }),
      response: {
        200: jwksShape.meta({ description: 'A JWK Set (RFC 7517 §5)', examples: [{ keys: [] }] }),
        ...errorAnswers('issuer_not_found', 'unavailable'),
      },
    },
    handler: async (request, reply) => {
      const { issuer } = request.params
      if (!issuers.has(issuer)) throw new CurfewError('issuer_not_found')
      const text = await read(issuer)
      return reply
        .header('content-type', 'application/jwk-set+json')
        .header('cache-control', `public, max-age=${CACHE_SECONDS}`)
        .send(text)
    },
  })
}
