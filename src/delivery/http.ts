/**
 * The only door out to receivers.
 *
 * One attempt has one time limit over everything (names, connecting, headers, body), follows no redirect, reads at
 * most 16 KiB of the answer (where nothing else is asked for) and never decompresses it. Addresses are checked as `door.ts` says; proxies of the
 * environment are not used. What came back, or why nothing did, is data: this never rejects.
 */
import { Agent } from 'undici'
import type { Dispatcher, buildConnector } from 'undici'
import type { Answer, OutboundRequest, Silence } from '../channels/channel.ts'
import { AddressRefused } from './door.ts'
import { NameError } from './resolve.ts'
import { parseRetryAfter } from './retry-after.ts'

export interface Door {
  /** Sends one request and settles within the time limit, whatever the receiver does. */
  send(request: OutboundRequest): Promise<Answer>
  /** Cuts every connection; attempts in flight end as `connection_lost`. */
  close(): Promise<void>
}

/** Enough to see what a receiver says; more would be its memory in ours. */
const MAX_BODY_BYTES = 16 * 1_024
const MAX_HEADER_BYTES = 16 * 1_024
/** Under the 5 s after which common servers close an idle connection, so that we rarely write into a closing one. */
const KEEP_ALIVE_MS = 4_000
/** After this a connection is made anew, so that a changed address or certificate is seen. */
const CONNECTION_LIFE_MS = 300_000
const DETAIL_LENGTH = 200

/** @param timeoutMs for one attempt in all. @param connect from `createConnect`. @param maxBodyBytes read of an answer. */
export const createDoor = (deps: { connect: buildConnector.connector; timeoutMs: number; now: () => number; maxBodyBytes?: number }): Door => {
  const { connect, timeoutMs, now, maxBodyBytes = MAX_BODY_BYTES } = deps
  const agent = new Agent({
    connect,
    pipelining: 1,
    keepAliveTimeout: KEEP_ALIVE_MS,
    keepAliveMaxTimeout: KEEP_ALIVE_MS,
    clientTtl: CONNECTION_LIFE_MS,
    maxHeaderSize: MAX_HEADER_BYTES,
    // Backstops: the attempt's own limit ends it first.
    headersTimeout: timeoutMs * 2,
    bodyTimeout: timeoutMs * 2,
  })

  return {
    send: (request) =>
      new Promise((resolve) => {
        const attempt = createAttempt({ timeoutMs, maxBodyBytes, now, settle: resolve })
        try {
          const { origin, pathname, search } = new URL(request.url)
          agent.dispatch(
            {
              origin,
              path: pathname + search,
              method: request.method,
              headers: { ...request.headers, 'accept-encoding': 'identity', 'user-agent': 'curfew' },
              body: request.method === 'GET' ? null : request.body,
            },
            attempt,
          )
        } catch (error) {
          attempt.onResponseError(null, error instanceof Error ? error : new Error('The request could not be made'))
        }
      }),
    close: () => agent.destroy(),
  }
}

interface AttemptHandler extends Dispatcher.DispatchHandler {
  onResponseError(controller: Dispatcher.DispatchController | null, error: Error): void
}

/** Follows one request to its answer; the first of answer, error and time limit settles it, and the rest is ignored. */
const createAttempt = ({ timeoutMs, maxBodyBytes, now, settle }: {
  timeoutMs: number
  maxBodyBytes: number
  now: () => number
  settle: (answer: Answer) => void
}): AttemptHandler => {
  let controller: Dispatcher.DispatchController | null = null
  let answered: { status: number; retryAfterMs: number | null } | null = null
  let settled = false
  let bytes = 0
  const chunks: Buffer[] = []

  const finish = (silent: () => Answer): void => {
    if (settled) return
    settled = true
    clearTimeout(timer)
    // A status that has arrived is the answer, also where its body never ends.
    settle(answered === null ? silent() : { ...answered, body: Buffer.concat(chunks).toString('utf8') })
  }
  const timer = setTimeout(() => {
    finish(() => ({ silence: 'timeout', detail: `No answer within ${timeoutMs} ms` }))
    controller?.abort(new Error('The attempt took too long'))
  }, timeoutMs)

  return {
    onRequestStart: (started) => {
      controller = started
      if (settled) started.abort(new Error('The attempt took too long'))
    },
    onResponseStart: (_controller, status, headers) => {
      if (status < 200) return
      const after = headers['retry-after']
      answered = { status, retryAfterMs: parseRetryAfter(Array.isArray(after) ? after[0] : after, now()) }
    },
    onResponseData: (current, chunk) => {
      if (settled) return
      chunks.push(chunk.subarray(0, maxBodyBytes - bytes))
      bytes += chunk.length
      if (bytes <= maxBodyBytes) return
      finish(() => ({ silence: 'connection_lost', detail: '' }))
      current.abort(new Error('The answer is too long'))
    },
    onResponseEnd: () => finish(() => ({ silence: 'connection_lost', detail: '' })),
    onResponseError: (_controller, error) => finish(() => silenceOf(error)),
  }
}

const refusedCodes = new Set(['ECONNREFUSED'])
const lostCodes = new Set(['ECONNRESET', 'EPIPE', 'UND_ERR_SOCKET', 'UND_ERR_ABORTED', 'UND_ERR_DESTROYED', 'UND_ERR_CLOSED'])
const lateCodes = new Set(['UND_ERR_CONNECT_TIMEOUT', 'UND_ERR_HEADERS_TIMEOUT', 'UND_ERR_BODY_TIMEOUT', 'ETIMEDOUT'])

const silenceOf = (error: Error): Answer => {
  const code = (error as { code?: unknown }).code?.toString() ?? ''
  const inner = error instanceof AggregateError ? error.errors.find((one) => one instanceof Error) : undefined
  const { message } = inner ?? error
  const detail = message.includes(code) ? message : `${code} ${message}`
  return { silence: wordOf(inner ?? error, code), detail: detail.trim().slice(0, DETAIL_LENGTH) }
}

const wordOf = (error: Error, code: string): Silence => {
  if (error instanceof AddressRefused) return 'address_refused'
  if (error instanceof NameError) return 'name_not_resolved'
  if (refusedCodes.has(code)) return 'connection_refused'
  if (lateCodes.has(code)) return 'timeout'
  if (lostCodes.has(code)) return 'connection_lost'
  if (code.startsWith('HPE_') || error.name === 'HTTPParserError' || code === 'UND_ERR_HEADERS_OVERFLOW') return 'not_http'
  if (/^(ERR_TLS|ERR_SSL|CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO|HOSTNAME_MISMATCH|EPROTO)/.test(code)) return 'tls_refused'
  return 'unreachable'
}
