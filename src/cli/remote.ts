/**
 * A Curfew elsewhere, reached through its API: `CURFEW_URL` says where, `CURFEW_TOKEN` who asks. Neither the token nor a
 * body is ever part of an error.
 *
 * Every request that is sent here may be repeated (what creates carries an `Idempotency-Key`), so one whose outcome is
 * unknown, or for which there is no room at the moment, is sent again a few times.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { ConfigError } from '../config.ts'
import { inOptions } from './in-options.ts'
import { shown } from './terminal.ts'

/** Curfew's answer was no, or there was none. `status` is null where none came. */
export class RemoteError extends Error {
  readonly status: number | null

  constructor(sentence: string, status: number | null, cause?: unknown) {
    super(sentence, { cause })
    this.name = 'RemoteError'
    this.status = status
  }
}

/** What was asked for is malformed; nothing was done. */
export class ArgumentRefused extends RemoteError {}

export interface RemoteRequest {
  readonly method?: 'GET' | 'POST'
  readonly path: string
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
}

export interface Remote {
  /** The answer's JSON. @throws RemoteError. */
  readonly call: (asked: RemoteRequest) => Promise<unknown>
  /** A long answer, piece by piece. @throws RemoteError before its first byte. */
  readonly open: (asked: RemoteRequest & { accept: string; signal?: AbortSignal }) => Promise<ReadableStream<Uint8Array>>
}

/** Longer than the longest held answer, and than a preview of many millions takes. */
const ANSWER_MS = 60_000
const TRIES = 4
/** Between them, where the server does not say. */
const PAUSE_MS = 1_000
const MAX_PAUSE_MS = 10_000
/** More words of an error are not for people. */
const MAX_SAID = 500
/** google.rpc.Code. */
const INVALID_ARGUMENT = 3

/** Where Curfew's API is, without a slash at its end; null where nothing says so. @throws ConfigError where it is no such URL. */
export const readUrl = ({ CURFEW_URL: text = '' }: NodeJS.ProcessEnv): string | null => {
  if (text === '') return null
  const url = URL.canParse(text) ? new URL(text) : null
  if (url === null || !/^https?:$/.test(url.protocol) || `${url.username}${url.password}${url.search}${url.hash}` !== '') {
    throw new ConfigError(['CURFEW_URL is wrong: it must be an http(s) URL without credentials, query and fragment'])
  }
  return text.replace(/\/+$/, '')
}

/** @throws ConfigError where a setting is missing or wrong. */
export const readRemote = (environment: NodeJS.ProcessEnv): { url: string; token: string } => {
  const url = readUrl(environment)
  const { CURFEW_TOKEN: token = '' } = environment
  const problems: string[] = []
  if (url === null) problems.push('CURFEW_URL is missing: where Curfew\'s API is, e.g. https://curfew.example')
  if (token === '') problems.push('CURFEW_TOKEN is missing: an access token of an issuer that this Curfew believes')
  else if (!/^[\x21-\x7e]+$/.test(token)) problems.push('CURFEW_TOKEN is wrong: it must be a bearer token, without spaces')
  if (url === null || problems.length > 0) throw new ConfigError(problems)
  return { url, token }
}

export const createRemote = ({ url, token }: { url: string; token: string }): Remote => {
  const send = async (asked: RemoteRequest, accept: string, signal: AbortSignal): Promise<Response> => {
    for (let left = TRIES - 1; ; left--) {
      const failed = await trySend(asked, accept, signal)
      if (failed.response?.ok === true) return failed.response
      if (left === 0 || signal.aborted || !failed.again) throw await refusal(url, failed)
      await failed.response?.body?.cancel()
      // Where it is too late for another try, that one says so.
      await pause(failed.afterMs, undefined, { signal }).catch(() => undefined)
    }
  }

  const trySend = async ({ method = 'GET', path, body, headers = {} }: RemoteRequest, accept: string, signal: AbortSignal): Promise<Sent> => {
    try {
      const response = await fetch(`${url}${path}`, {
        method,
        signal,
        // A redirect would carry the token elsewhere.
        redirect: 'manual',
        headers: { authorization: `Bearer ${token}`, accept, ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      })
      const seconds = Number(response.headers.get('retry-after') ?? Number.NaN)
      const afterMs = Number.isNaN(seconds) ? PAUSE_MS : Math.min(seconds * 1_000, MAX_PAUSE_MS)
      return { response, again: [429, 502, 503, 504].includes(response.status), afterMs }
    } catch (error) {
      return { response: null, error, again: !isUnreachable(error), afterMs: PAUSE_MS }
    }
  }

  return {
    call: async (asked) => {
      const response = await send(asked, 'application/json', AbortSignal.timeout(ANSWER_MS))
      const text = await response.text()
      try {
        return text === '' ? null : (JSON.parse(text) as unknown)
      } catch (error) {
        throw new RemoteError(`${url} did not answer with JSON; is CURFEW_URL right?`, response.status, error)
      }
    },
    open: async ({ accept, signal, ...asked }) => {
      const started = new AbortController()
      const timer = setTimeout(() => started.abort(new Error('No answer in time')), ANSWER_MS)
      try {
        const whole = signal === undefined ? started.signal : AbortSignal.any([started.signal, signal])
        const { body } = await send(asked, accept, whole)
        if (body === null) throw new RemoteError(`${url} answered nothing`, null)
        return body
      } finally {
        clearTimeout(timer)
      }
    },
  }
}

interface Sent {
  readonly response: Response | null
  readonly error?: unknown
  /** Worth another try. */
  readonly again: boolean
  readonly afterMs: number
}

/** Nobody was asked: there is nothing in doubt, and the address is probably wrong. */
const isUnreachable = (error: unknown): boolean => {
  const { cause } = error as { cause?: { code?: unknown; errors?: { code?: unknown }[] } }
  const codes = [cause?.code, ...(cause?.errors ?? []).map(({ code }) => code)]
  return codes.some((code) => ['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN'].includes(String(code)))
}

const refusal = async (url: string, { response, error }: Sent): Promise<RemoteError> => {
  if (response === null) {
    const why = isUnreachable(error) ? 'cannot be reached; is CURFEW_URL right?' : 'did not answer; what was asked for may have been done.'
    return new RemoteError(`${url} ${why}`, null, error)
  }
  const { status } = response
  if (status >= 300 && status < 400) return new RemoteError(`${url} answered with a redirect; is CURFEW_URL right?`, status)
  const { code, message } = saidIn(await response.text().catch(() => ''))
  if (status === 400 && code === INVALID_ARGUMENT && message !== null) return new ArgumentRefused(`${message}.`, status)
  const hint = status === 401 ? ' Is CURFEW_TOKEN still good? What you had revoked may have ended it.' : ''
  return new RemoteError(`${message ?? `${url} answered ${status}`}.${hint}`, status)
}

/** Of an error as Curfew writes it, its code and its message in the words of options, without a full stop; null for anything else. */
const saidIn = (text: string): { code: unknown; message: string | null } => {
  try {
    const { code, message } = JSON.parse(text) as { code?: unknown; message?: unknown }
    return { code, message: typeof message === 'string' && message !== '' ? inOptions(shown(message)).slice(0, MAX_SAID).replace(/\.$/, '') : null }
  } catch {
    return { code: null, message: null }
  }
}
