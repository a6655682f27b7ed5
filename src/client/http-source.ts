/**
 * Follows the stream over HTTP, for those without Curfew's Redis: `GET /v1/stream/snapshot`, then server-sent events.
 * The token needs `session.read` for the instance. A position that the server no longer serves leads to a new snapshot, of
 * what came since: many guards that need one at once must not wait for each other's millions.
 */
import { eventsOf, linesOf } from './lines.ts'
import type { Sink, Source } from './source.ts'
import type { ClockOnTheWire, EntryOnTheWire, FreshOnTheWire, SnapshotEnd, SnapshotHead } from './wire.ts'

/** The server says something each second; a connection that is silent for so long is gone. */
const SILENT_MS = 5_000

export interface HttpSourceOptions {
  /** Where Curfew's API is, e.g. `https://curfew.example`. */
  readonly url: string
  /** A bearer token, or what makes one; asked anew for each connection. */
  readonly token: string | (() => string | Promise<string>)
}

/** Aborts where nothing was heard for a while. `heard` starts the time anew. */
const watch = (signal: AbortSignal) => {
  const controller = new AbortController()
  const stop = () => controller.abort(signal.reason)
  if (signal.aborted) stop()
  signal.addEventListener('abort', stop)
  const silent = () => controller.abort(new Error(`Nothing was heard for ${SILENT_MS} ms`))
  let timer = setTimeout(silent, SILENT_MS)
  return {
    signal: controller.signal,
    heard: () => {
      clearTimeout(timer)
      timer = setTimeout(silent, SILENT_MS)
    },
    end: () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', stop)
      controller.abort()
    },
  }
}

/** Whatever makes a token may never answer. */
const orAborted = async <T>(answer: T | Promise<T>, signal: AbortSignal): Promise<T> => {
  signal.throwIfAborted()
  let stop = () => {}
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason as Error)
    signal.addEventListener('abort', stop)
  })
  return Promise.race([answer, aborted]).finally(() => signal.removeEventListener('abort', stop))
}

/** A server's clock, told in ours so that nothing seems newer than it is: what it said first came after we had asked. */
const createServerClock = (askedMs: number) => {
  let firstMs: number | null = null
  return (atMs: number): number => {
    firstMs ??= atMs
    return askedMs + (atMs - firstMs)
  }
}

export const createHttpSource = ({ url, token }: HttpSourceOptions): Source => {
  const base = url.replace(/\/+$/, '')
  /** Up to here nothing was missed, for certain; null: a snapshot is needed. */
  let position: string | null = null
  /** Everything committed up to here is known, by `performance.now()`: a new snapshot need not begin before. */
  let knownMs: number | null = null

  const ask = async (path: string, signal: AbortSignal, init: { accept: string; body?: string }): Promise<Response> => {
    const bearer = typeof token === 'string' ? token : await orAborted(token(), signal)
    const response = await fetch(`${base}${path}`, {
      signal,
      // A redirect would carry the token elsewhere. Not 'error': with it Node 20 loses hold of the signal at the next
      // garbage collection, and then nothing ends the body of a connection that has fallen silent.
      redirect: 'manual',
      headers: { authorization: `Bearer ${bearer}`, accept: init.accept, ...(init.body === undefined ? {} : { 'content-type': 'application/json' }) },
      ...(init.body === undefined ? {} : { method: 'POST', body: init.body }),
    })
    if (response.ok || response.status === 410) return response
    if (response.status >= 300 && response.status < 400) {
      await response.body?.cancel()
      throw new Error(`${path.split('?', 1)[0]} answered with a redirect; is the URL that of Curfew's API?`)
    }
    throw new Error(`${path.split('?', 1)[0]} answered ${response.status}: ${(await response.text()).slice(0, 200)}`)
  }

  const fresh = (sink: Sink, asOfMs: number): void => {
    if (!Number.isFinite(asOfMs)) return
    knownMs = Math.max(knownMs ?? asOfMs, asOfMs)
    sink.fresh(asOfMs)
  }

  const snapshot = async (sink: Sink, signal: AbortSignal): Promise<void> => {
    const watched = watch(signal)
    try {
      const askedMs = performance.now()
      const { body } = await ask(`/v1/stream/snapshot${knownMs === null ? '' : `?known=${Math.ceil(askedMs - knownMs)}`}`, watched.signal, { accept: 'application/x-ndjson' })
      let head: SnapshotHead | null = null
      let isWhole = false
      if (body !== null) for await (const line of linesOf(body)) {
        watched.heard()
        if (line === '') continue
        const said = JSON.parse(line) as SnapshotHead | EntryOnTheWire | SnapshotEnd
        if (head === null) head = said as SnapshotHead
        else if ('done' in said) isWhole = true
        else sink.learn(said as EntryOnTheWire)
      }
      if (head === null || !isWhole) throw new Error('The snapshot was broken off')
      position = head.position
      fresh(sink, askedMs - head.lagMs)
    } finally {
      watched.end()
    }
  }

  const tail = async (sink: Sink, signal: AbortSignal): Promise<void> => {
    const watched = watch(signal)
    try {
      const clock = createServerClock(performance.now())
      const { status, body } = await ask(`/v1/stream?after=${encodeURIComponent(position ?? '')}`, watched.signal, { accept: 'text/event-stream' })
      if (status === 410) {
        position = null
        return
      }
      let entries = 0
      let seen = position
      if (body !== null) for await (const { event, id, data } of eventsOf(body)) {
        watched.heard()
        if (event === 'entry') {
          sink.learn(JSON.parse(data) as EntryOnTheWire)
          entries += 1
          seen = id
        } else if (event === 'clock') {
          clock((JSON.parse(data) as ClockOnTheWire).atMs)
        } else if (event === 'fresh') {
          const told = JSON.parse(data) as FreshOnTheWire
          if (told.entries !== entries) throw new Error('Entries of the stream were lost on the way')
          position = seen
          fresh(sink, clock(told.atMs) - told.lagMs)
        } else if (event === 'reset') {
          position = null
          return
        }
      }
    } finally {
      watched.end()
    }
  }

  return {
    // The server ends each connection after some minutes, so that tokens are checked anew: that is no error.
    follow: async (sink, signal) => {
      if (position === null) await snapshot(sink, signal)
      await tail(sink, signal)
    },
    report: async (attempts) => {
      const { body } = await ask('/v1/attempts', AbortSignal.timeout(SILENT_MS), { accept: 'application/json', body: JSON.stringify({ attempts }) })
      await body?.cancel()
    },
  }
}
