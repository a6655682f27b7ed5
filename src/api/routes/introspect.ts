/**
 * `POST /v1/introspect`: is this token good at this moment? (RFC 7662.) For resource servers in any language: a good
 * token is one that its issuer vouches for, whose session is not terminated, and that no cutoff rule kills.
 *
 * The caller shows a bearer token of its own that may read the instance's sessions; client credentials are not taken.
 */
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { requireInstance } from '../../auth/caller.ts'
import type { JudgeToken } from '../../auth/judge-token.ts'
import { CurfewError } from '../../errors.ts'
import type {} from '../caller.ts'
import { errorAnswers } from '../documented-errors.ts'

export interface IntrospectDeps {
  readonly judgeToken: JudgeToken
}

/** A token has at most 8 KiB; escaped, and with a hint. */
const BODY_LIMIT_BYTES = 32_768

/** RFC 7662 §2.2, and what sessions are known by. Claims beyond these are not handed on. */
const answer = z.object({
  active: z.boolean(),
  iss: z.string().optional(),
  sub: z.string().optional(),
  aud: z.union([z.string(), z.array(z.string())]).optional().describe('Check that it is you'),
  client_id: z.string().optional(),
  scope: z.string().optional(),
  sid: z.string().optional().describe('The session'),
  exp: z.number().optional(),
  iat: z.number().optional(),
  nbf: z.number().optional(),
  auth_time: z.number().optional(),
  jti: z.string().optional(),
  acr: z.string().optional(),
  amr: z.array(z.string()).optional(),
  cnf: z.record(z.string(), z.unknown()).optional().describe('The token is bound to this key: check the proof'),
})

/** The claims that are of the kind the answer names; a claim of another kind says nothing. */
const told = (claims: Readonly<Record<string, unknown>>): z.output<typeof answer> => {
  const kept = Object.entries(answer.shape).flatMap(([name, shape]) => {
    const read = Object.hasOwn(claims, name) ? shape.safeParse(claims[name]) : undefined
    return read?.success === true && read.data !== undefined ? [[name, read.data]] : []
  })
  return { ...(Object.fromEntries(kept) as Record<string, unknown>), active: true }
}

/** RFC 6749 §3.1: no parameter more than once. */
const readForm = (text: string): Record<string, string> => {
  const form = [...new URLSearchParams(text)]
  const fields = Object.fromEntries(form)
  if (Object.keys(fields).length < form.length) throw new CurfewError('invalid_argument', { says: 'Body has a parameter twice' })
  return fields
}

export const introspectRoute: FastifyPluginAsyncZod<IntrospectDeps> = async (app, deps) => {
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('application/x-www-form-urlencoded', { parseAs: 'string' }, (_request, text, done) => {
    try {
      done(null, readForm(String(text)))
    } catch (error) {
      done(error as Error)
    }
  })
  app.post('/v1/introspect', {
    // Before the body is read: who may not ask learns nothing.
    onRequest: (request, _reply, done) => {
      requireInstance(request.caller, 'session.read')
      done()
    },
    bodyLimit: BODY_LIMIT_BYTES,
    schema: {
      tags: ['checks'],
      summary: 'Is a token good at this moment?',
      description:
        'RFC 7662. A token that is not good, for whatever reason, is answered `{"active":false}` and nothing else: it is ' +
        'invalid, its session is terminated, a cutoff rule kills it, or its issuer is none of the caller’s. Permission ' +
        '`session.read` for the instance.',
      consumes: ['application/x-www-form-urlencoded'],
      body: z.object({ token: z.string().min(1), token_type_hint: z.string().optional() }),
      response: {
        200: answer,
        ...errorAnswers('permission_denied', 'unsupported_media_type', 'body_too_large', 'issuer_unavailable'),
      },
    },
    handler: async ({ caller, body }) => {
      const claims = await deps.judgeToken(caller, body.token)
      return claims === null ? { active: false } : told(claims)
    },
  })
}
