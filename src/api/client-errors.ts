/**
 * What is refused before it is a request: broken HTTP, headers over 16 KiB, a client that never finishes. Node's
 * parser refuses smuggling (two lengths, length and chunking, bare line feeds) on its own; here it gets our shape.
 */
import { STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { CurfewError } from '../errors.ts'
import type { ErrorName } from '../errors.ts'

const kinds: Readonly<Record<string, ErrorName>> = {
  HPE_HEADER_OVERFLOW: 'headers_too_large',
  ERR_HTTP_REQUEST_TIMEOUT: 'request_timeout',
}

/** Answers on the bare socket and closes it: after a parse error nothing that follows can be trusted. */
export const answerClientError = (error: Error & { code?: string }, socket: Socket): void => {
  if (error.code === 'ECONNRESET' || socket.destroyed) return
  if (socket.writable) {
    const kind = kinds[error.code ?? '']
    const told = kind === undefined ? new CurfewError('invalid_argument', { says: 'Malformed HTTP request' }) : new CurfewError(kind)
    const body = JSON.stringify(told.body())
    socket.write([
      `HTTP/1.1 ${told.status} ${STATUS_CODES[told.status] ?? 'Error'}`,
      'content-type: application/json; charset=utf-8',
      'cache-control: no-store',
      `content-length: ${Buffer.byteLength(body)}`,
      'connection: close',
      '',
      body,
    ].join('\r\n'))
  }
  socket.destroy(error)
}
