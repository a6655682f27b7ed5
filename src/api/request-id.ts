/**
 * The request's id: the caller's `x-request-id` where it is short and harmless, else one of our own. It is returned
 * in every answer and stands in our logs, so anything that could forge a log line or grow it is not taken over.
 */
import { randomBytes } from 'node:crypto'
import type { IncomingMessage } from 'node:http'

const acceptable = /^[A-Za-z0-9._-]{1,128}$/

/** Makes `genReqId`. Ids are unique within the process, and across processes by the random prefix. */
export const createRequestIds = (): ((request: Pick<IncomingMessage, 'headers'>) => string) => {
  const prefix = `${randomBytes(6).toString('hex')}-`
  let count = 0
  return ({ headers }) => {
    const given = headers['x-request-id']
    if (given !== undefined && typeof given === 'string' && acceptable.test(given)) return given
    count += 1
    return prefix + count.toString(36)
  }
}
