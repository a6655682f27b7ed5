/**
 * Lets a server that closes come to its end. What is idle when it closes is ended by Fastify; a connection that is
 * answered only after that would be kept open for the client's next request, and the close would wait for it.
 */
import type { FastifyInstance } from 'fastify'

/** Far below every deadline of a stop, and few looks at what may be thousands of connections. */
const EVERY_MS = 50

/** Ends each connection soon after its last answer, from when the server begins to close. */
export const drainConnections = (app: FastifyInstance): void => {
  let sweeper: NodeJS.Timeout | undefined
  app.addHook('preClose', (done) => {
    sweeper = setInterval(() => app.server.closeIdleConnections(), EVERY_MS)
    done()
  })
  app.addHook('onClose', (_app, done) => {
    clearInterval(sweeper)
    done()
  })
}
