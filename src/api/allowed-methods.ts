/**
 * A wrong method on a known path is 405 with `Allow` (RFC 9110 §15.5.6), not 404. For each known pattern the methods
 * that no route takes are registered too, and refuse in onRequest: before authentication and before any body.
 *
 * A literal path counts as known to a pattern that matches it, because the router falls back from one to the other
 * by method: `DELETE /v2/sessions/search` ends the session with the id "search".
 */
import type { FastifyInstance, HTTPMethods } from 'fastify'
import { CurfewError } from '../errors.ts'
import { withoutExpressions } from './verb-path.ts'

/**
 * For a route whose answer is written while it is read. HEAD of it would be over at once, with all that is bounded by what is
 * under way, and the whole answer would still be read to its end for nobody.
 */
export const withoutHead = { exposeHeadRoute: false } as const

/** Paths that lead to routes of ours and take no method themselves. */
const collections = ['/v2/sessions', '/v2beta/sessions']

/** Collects the patterns registered after this call; `refuseOthers` is to be called when all are there. */
export const createAllowedMethods = (app: FastifyInstance) => {
  const methodsOf = new Map<string, Set<string>>()
  app.addHook('onRoute', ({ url, method }) => {
    const known = methodsOf.get(url) ?? new Set()
    for (const one of typeof method === 'string' ? [method] : method) known.add(one)
    methodsOf.set(url, known)
  })

  const refuseOthers = (): void => {
    for (const path of collections) if (!methodsOf.has(path)) methodsOf.set(path, new Set())
    // A copy: the routes registered below are reported to the hook above.
    const known = [...methodsOf].map(([url, methods]) => ({ url, methods: new Set(methods), matches: matcher(url) }))
    for (const { url } of known) {
      const allowed = new Set<string>()
      for (const other of known) if (other.matches(url)) for (const method of other.methods) allowed.add(method)
      for (const method of app.supportedMethods) if (app.hasRoute({ method: method as HTTPMethods, url })) allowed.add(method)
      const allow = [...allowed].sort().join(', ')
      app.route({
        method: app.supportedMethods.filter((method) => !allowed.has(method)) as HTTPMethods[],
        url,
        schema: { hide: true },
        onRequest: (_request, reply, done) => {
          reply.header('allow', allow)
          done(new CurfewError('method_not_allowed'))
        },
        handler: () => undefined,
      })
    }
  }

  return { refuseOthers }
}

/**
 * Says whether a pattern of the router's matches a path, itself included. `:name`, with or without an expression of its
 * own, is one segment up to a colon (behind which a verb stands); `*` is the rest.
 */
const matcher = (pattern: string): ((path: string) => boolean) => {
  const source = withoutExpressions(pattern)
    .replaceAll('::', '\0')
    .replace(/[.+?^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replace(/:\w+/g, '[^/:]*')
    .replaceAll('\0', ':')
  const expression = new RegExp(`^${source}$`)
  const literal = (path: string) => withoutExpressions(path).replaceAll('::', '\0').replace(/:\w+/g, 'x').replaceAll('\0', ':')
  return (path) => path === pattern || expression.test(literal(path))
}
