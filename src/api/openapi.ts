/**
 * `/openapi.json` and the page at `/docs`, made from the routes' own schemas. A route may carry its description in
 * `config.document` instead of `schema`: then it is described, but nothing validates or serializes.
 */
import swagger from '@fastify/swagger'
import type { FastifyDynamicSwaggerOptions } from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import type { FastifyInstance } from 'fastify'
import { jsonSchemaTransform } from 'fastify-type-provider-zod'
import { commonErrors, errorAnswers } from './documented-errors.ts'
import { webhooksDocument } from './webhook-document.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Stands in the OpenAPI document where the route has no `schema` of its own. */
    document?: FastifySchema
  }
}

/** The page loads nothing from elsewhere and may be framed by nobody. */
const PAGE_POLICY = {
  'default-src': ["'none'"],
  'connect-src': ["'self'"],
  'font-src': ["'self'"],
  'img-src': ["'self'", 'data:'],
  'script-src': ["'self'"],
  'style-src': ["'self'", "'unsafe-inline'"],
  'base-uri': ["'none'"],
  'frame-ancestors': ["'none'"],
}

/** OpenAPI 3.1 alone has them. Zod writes JSON Schema, which that version's schemas are. */
type Webhooks = NonNullable<Extract<NonNullable<FastifyDynamicSwaggerOptions['openapi']>, { webhooks?: unknown }>['webhooks']>

/** Starts collecting routes: register before them. */
export const registerOpenApi = async (app: FastifyInstance, options: { publicUrl: string | null }): Promise<void> => {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Curfew',
        version: '0.1.0',
        description: 'Ends user sessions everywhere, for certain. Errors have one shape, `{code, message, details?}`.',
      },
      ...(options.publicUrl === null ? {} : { servers: [{ url: options.publicUrl }] }),
      components: {
        securitySchemes: {
          bearer: { type: 'http', scheme: 'bearer', description: 'An access token of an issuer that this server believes' },
        },
      },
      security: [{ bearer: [] }],
      webhooks: webhooksDocument as unknown as Webhooks,
    },
    transform: ({ schema, route, ...rest }) => {
      const described = route.config?.document ?? schema ?? {}
      const isPublic = described.security?.length === 0
      const common = isPublic ? errorAnswers('internal') : errorAnswers(...commonErrors)
      const response = { ...common, ...(described.response as object | undefined) }
      const whole = { ...rest, route, schema: { ...described, response } }
      return jsonSchemaTransform(whole as Parameters<typeof jsonSchemaTransform>[0])
    },
    transformObject: (document) => {
      if (!('openapiObject' in document)) return document.swaggerObject
      const { openapiObject } = document
      // The plugin calls every body required; that of a DELETE never is.
      for (const path of Object.values(openapiObject.paths ?? {})) {
        const body = path?.delete?.requestBody
        if (body !== undefined && 'content' in body) body.required = false
      }
      return openapiObject
    },
  })
}

/** Serves the document and the page. */
export const openApiRoutes = async (app: FastifyInstance): Promise<void> => {
  let text: string | null = null
  app.get('/openapi.json', {
    schema: { tags: ['operations'], summary: 'This document', security: [] },
    handler: (_request, reply) => {
      text ??= JSON.stringify(app.swagger())
      return reply.header('content-type', 'application/json; charset=utf-8').send(text)
    },
  })
  await app.register(swaggerUi, { routePrefix: '/docs', staticCSP: PAGE_POLICY, uiConfig: { url: '/openapi.json' } })
}
