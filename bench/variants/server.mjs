/**
 * What every baseline shares with the product: Fastify, and the product's own token check before the handler. A
 * baseline is given the id and the caller and answers with details, or null where there is no such session.
 */
import Fastify from 'fastify'
import { createAuthenticate } from '../../dist/auth/authenticate.js'
import { createTrust } from '../../dist/auth/trust.js'
import { requireInstance } from '../../dist/auth/caller.js'
import { readSettings } from '../../dist/config.js'
import { CurfewError } from '../../dist/errors.js'

/**
 * @typedef {import('../../dist/auth/caller.js').Caller} Caller
 * @typedef {import('../../dist/model.js').Details} Details
 * @typedef {(sessionId: string, caller: Caller) => Details | Promise<Details | null>} End
 */

const { ISSUERS } = readSettings(process.env, ['ISSUERS'])
const quiet = { info: () => {}, warn: () => {} }

/** Says that the process is ready, as the product does; the address is null where it serves none. */
export const sayStarted = (/** @type {string | null} */ apiUrl) => {
  process.stdout.write(`${JSON.stringify({ event: 'service.started', apiUrl })}\n`)
}

/** Stops on SIGTERM with exit code 0. */
export const stopWith = (/** @type {() => Promise<unknown>} */ stop) => {
  process.once('SIGTERM', () => void stop().finally(() => process.exit(0)))
}

/**
 * @param {{ end: End, stop?: () => Promise<unknown> }} baseline
 */
export const serve = async ({ end, stop = async () => {} }) => {
  const authenticate = createAuthenticate({ trust: createTrust({ issuers: ISSUERS, log: quiet }), log: quiet })
  const app = Fastify({ forceCloseConnections: true })
  app.decorateRequest('caller', null)

  const admit = (/** @type {any} */ request, /** @type {Caller} */ caller) => {
    requireInstance(caller, 'session.delete')
    request.caller = caller
  }
  app.addHook('onRequest', (request, _reply, done) => {
    try {
      const caller = authenticate(request.headers.authorization)
      if (caller instanceof Promise) {
        caller.then((known) => admit(request, known)).then(() => done(), done)
        return
      }
      admit(request, caller)
      done()
    } catch (error) {
      done(error instanceof Error ? error : new Error(String(error)))
    }
  })
  app.setErrorHandler((error, _request, reply) => {
    const status = error instanceof CurfewError ? 403 : 500
    if (status === 500) process.stderr.write(`${error}\n`)
    reply.code(status).send({ code: status })
  })
  app.delete('/v2/sessions/:sessionId', async (/** @type {any} */ request, reply) => {
    const details = await end(request.params.sessionId, request.caller)
    return details === null ? reply.code(404).send({ code: 5 }) : { details }
  })

  const apiUrl = await app.listen({ host: '127.0.0.1', port: 0 })
  stopWith(async () => {
    await app.close()
    await stop()
  })
  sayStarted(apiUrl)
}
