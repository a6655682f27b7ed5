/**
 * The stream over HTTP, for guards and resource servers without Curfew's Redis: a snapshot of what is in force, and what
 * came after a position as server-sent events or by long poll. Permission `session.read` for the instance.
 *
 * Answers are written while they are made, so they hold a page in memory however long they are. A snapshot that breaks
 * off lacks its last line.
 */
import { Readable } from 'node:stream'
import type { FastifyInstance, FastifyReply } from 'fastify'
import { z } from 'zod'
import { requireInstance } from '../../auth/caller.ts'
import { piecesOf, rulePieces, weightOf } from '../../channels/stream-pieces.ts'
import type { ClockOnTheWire, FreshOnTheWire, SnapshotEnd, SnapshotHead, TailOnTheWire } from '../../client/wire.ts'
import { CurfewError } from '../../errors.ts'
import { ruleOnTheWire } from '../../store/stream.ts'
import type { RetoldPage, RetoldPlace, TombstonePage } from '../../store/stream.ts'
import { withoutHead } from '../allowed-methods.ts'
import type { Caller } from '../caller.ts'
import { errorAnswers } from '../documented-errors.ts'
import { cursorText, readCursor } from '../stream-cursor.ts'
import type { StreamCursor } from '../stream-cursor.ts'
import { createStreamFeed } from '../stream-feed.ts'
import type { Step, StreamReads } from '../stream-feed.ts'

export interface StreamRoutesDeps extends StreamReads {
  /** As far back as anything can still live, or as what was committed so long ago. */
  readonly readTombstones: (asked: { before: string | null; sinceMsAgo: number | null }) => Promise<TombstonePage>
  /** Whatever of older commits was told again since then; a page of it. */
  readonly readRetold: (asked: { sinceMsAgo: number; after: RetoldPlace | null }) => Promise<RetoldPage>
  /** Throws where the session of the caller's own token has ended. */
  readonly refuseDeadToken: (caller: Caller) => void | Promise<void>
}

/** Each is some seconds of reading for a million sessions; more at once would only be slower. */
const SNAPSHOTS_AT_ONCE = 4
/** A connection ends after so long, so that its token is checked anew. Half of it is chance: not all come back at once. */
const CONNECTION_MS = 300_000
const MAX_WAIT_SECONDS = 30
/** A hundred years. */
const MAX_KNOWN_MS = 3_155_760_000_000
/** Long enough to see all that is committed, also where nothing is waited for. */
const LOOK_MS = 500
/** Entries of one long poll, and what they hold together: some megabytes. One entry is never cut. */
const ENTRIES_PER_POLL = 100
const WEIGHT_PER_POLL = 20_000
const RULES_AT_ONCE = 500
/** Longer than a commit's transaction can last, and than clocks differ. */
const KNOWN_MARGIN_MS = 120_000

const entryShape = z.object({
  ended: z.array(z.object({ issuer: z.string(), sessionIds: z.array(z.string()), expiresMs: z.array(z.number()) })).optional(),
  rules: z.array(z.looseObject({ id: z.string(), issuer: z.string() })).optional(),
})

const line = (value: object): string => `${JSON.stringify(value)}\n`

const eventOf = (event: string, data: object, id?: string): string =>
  `event: ${event}\n${id === undefined ? '' : `id: ${id}\n`}data: ${JSON.stringify(data)}\n\n`

/** Calls back once, when the answer is over, however it ends; at once where its reader is gone already. */
const whenOver = (reply: FastifyReply, done: () => void): void => {
  if (reply.raw.destroyed) done()
  else reply.raw.once('close', done)
}

/** Aborted when the answer is no longer wanted, or after a while. */
const untilGone = (reply: FastifyReply, limitMs: number): AbortController => {
  const controller = new AbortController()
  const timer = setTimeout(() => controller.abort(), limitMs)
  controller.signal.addEventListener('abort', () => clearTimeout(timer))
  whenOver(reply, () => controller.abort())
  return controller
}

export const streamRoutes = async (app: FastifyInstance, deps: StreamRoutesDeps): Promise<void> => {
  const feed = createStreamFeed(deps)
  let snapshots = 0
  app.addHook('preClose', (done) => {
    feed.stop()
    done()
  })

  const send = (reply: FastifyReply, type: string, text: AsyncIterable<string>) =>
    reply.header('content-type', type).header('x-accel-buffering', 'no').send(Readable.from(text, { objectMode: false }))

  /** Everything in force when its head was read, and some of what came after. */
  async function* snapshot(head: StreamCursor, knownMs: number | null): AsyncGenerator<string> {
    const sinceMsAgo = knownMs === null ? null : knownMs + KNOWN_MARGIN_MS
    yield line({ position: cursorText(head), lagMs: 0 } satisfies SnapshotHead)
    for (let after = 0n; ; ) {
      const rules = await deps.readRulesAfter({ after, limit: RULES_AT_ONCE })
      for (const piece of rulePieces(rules)) yield line({ rules: piece.map(ruleOnTheWire) })
      after = rules.at(-1)?.version ?? after
      if (rules.length < RULES_AT_ONCE) break
    }
    let before: string | null = null
    do {
      const page: TombstonePage = await deps.readTombstones({ before, sinceMsAgo })
      // An empty line for an empty page: who reads takes long silence for a lost connection.
      if (page.ended.length === 0 && page.next !== null) yield '\n'
      if (page.ended.length > 0) for (const piece of piecesOf({ ended: page.ended })) yield line(piece)
      before = page.next
    } while (before !== null)
    let retold: RetoldPlace | null = null
    if (sinceMsAgo !== null) {
      do {
        const page: RetoldPage = await deps.readRetold({ sinceMsAgo, after: retold })
        if (page.ended.length > 0) for (const piece of piecesOf({ ended: page.ended })) yield line(piece)
        retold = page.next
      } while (retold !== null)
    }
    yield line({ done: true } satisfies SnapshotEnd)
  }

  async function* events(steps: AsyncGenerator<Step, void, void>, { from, caller, leave }: { from: StreamCursor; caller: Caller; leave: () => void }): AsyncGenerator<string> {
    let entries = 0
    let told = cursorText(from)
    try {
      yield eventOf('clock', { atMs: performance.now() } satisfies ClockOnTheWire)
      for await (const step of steps) {
        if (step.kind === 'reset') {
          yield eventOf('reset', {})
          return
        }
        if (step.kind === 'entry') {
          const pieces = piecesOf(step.entry)
          for (const [at, piece] of pieces.entries()) {
            entries += 1
            // Before its last piece nobody has got past it.
            if (at === pieces.length - 1) told = cursorText(step.cursor)
            yield eventOf('entry', piece, told)
          }
          continue
        }
        yield eventOf('fresh', { atMs: step.atMs, lagMs: step.lagMs, entries } satisfies FreshOnTheWire)
        try {
          await deps.refuseDeadToken(caller)
        } catch {
          // Its own session has ended, or that cannot be said: it may come back with a token and be told.
          return
        }
      }
    } finally {
      leave()
    }
  }

  const poll = async (steps: AsyncGenerator<Step, void, void>, from: StreamCursor, waits: boolean): Promise<TailOnTheWire> => {
    const entries = []
    let weight = 0
    let cursor = from
    for await (const step of steps) {
      if (step.kind === 'reset') throw new CurfewError('stream_position_gone')
      if (step.kind === 'entry') {
        entries.push(step.entry)
        weight += weightOf(step.entry)
        cursor = step.cursor
        if (entries.length < ENTRIES_PER_POLL && weight < WEIGHT_PER_POLL && !feed.reached(cursor)) continue
      }
      // Fresh: there was nothing.
      if (entries.length > 0 || !waits) break
    }
    return { position: cursorText(cursor), entries }
  }

  app.get<{ Querystring: { known?: number } }>('/v1/stream/snapshot', {
    ...withoutHead,
    schema: {
      tags: ['stream'],
      summary: 'All ended sessions and cutoff rules in force',
      description: 'Permission `session.read` for the instance. JSON lines: first `{position, lagMs}`, then entries as on the stream, last `{done: true}`; empty lines in between say nothing. Whoever knows already all that was committed until `known` milliseconds ago is told the rules and what came since.',
      querystring: z.object({ known: z.coerce.number().int().min(0).max(MAX_KNOWN_MS).optional() }),
      response: {
        200: z.string().meta({ description: 'application/x-ndjson' }),
        ...errorAnswers('permission_denied'),
      },
    },
    handler: async (request, reply) => {
      requireInstance(request.caller, 'session.read')
      if (snapshots >= SNAPSHOTS_AT_ONCE) throw new CurfewError('overloaded')
      snapshots += 1
      whenOver(reply, () => { snapshots -= 1 })
      return send(reply, 'application/x-ndjson', snapshot(await deps.readHead(), request.query.known ?? null))
    },
  })

  app.get<{ Querystring: { after?: string; wait: number } }>('/v1/stream', {
    ...withoutHead,
    schema: {
      tags: ['stream'],
      summary: 'What came on the stream after a position',
      description: 'Permission `session.read` for the instance. With `Accept: text/event-stream` the events `clock` at first, `entry` (its id is a position after which nothing was missed), `fresh` each second, and `reset` where a new snapshot is needed; else a long poll of `wait` seconds.',
      querystring: z.object({ after: z.string().max(64).optional(), wait: z.coerce.number().int().min(0).max(MAX_WAIT_SECONDS).default(0) }),
      response: {
        200: z.object({ position: z.string(), entries: z.array(entryShape) }).meta({ description: 'A long poll’s answer' }),
        ...errorAnswers('permission_denied', 'stream_position_gone', 'overloaded'),
      },
    },
    handler: async (request, reply) => {
      const { caller, headers, query } = request
      requireInstance(caller, 'session.read')
      // A reconnecting EventSource repeats its URL: what it has seen since stands in the header.
      const lastSeen = headers['last-event-id']
      const text = (typeof lastSeen === 'string' && lastSeen !== '' ? lastSeen : query.after) ?? ''
      if (text === '') throw new CurfewError('invalid_argument', { says: 'after is missing: take a snapshot first' })
      const from = readCursor(text)
      if (from === null) throw new CurfewError('stream_position_gone')
      const asEvents = headers.accept?.includes('text/event-stream') === true
      const limitMs = asEvents ? CONNECTION_MS * (0.5 + Math.random() / 2) : Math.max(query.wait * 1_000, LOOK_MS)
      const wanted = untilGone(reply, limitMs)
      const steps = await feed.follow(from, wanted.signal)
      if (asEvents) return send(reply, 'text/event-stream; charset=utf-8', events(steps, { from, caller, leave: () => wanted.abort() }))
      try {
        const tail = await poll(steps, from, query.wait > 0)
        // Written as it is: nothing here needs a second look, and entries can be long.
        return await reply.header('content-type', 'application/json; charset=utf-8').send(JSON.stringify(tail))
      } finally {
        wanted.abort()
      }
    },
  })
}
