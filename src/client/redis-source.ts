/**
 * Follows the stream in Redis over one connection: a snapshot (ZSCAN sees every member that is there throughout), then
 * what was added since, entry by entry. Positions have no gaps, so an entry that was missed is noticed and a new
 * snapshot is taken. Reads only; needs `HGETALL TIME INFO XREVRANGE XREAD ZSCAN MULTI EXEC`.
 */
import type { Redis } from 'ioredis'
import { isWhole, readTombstoneMember, runIdOf, streamKeys } from './redis-names.ts'
import type { Sink, Source } from './source.ts'
import type { EntryOnTheWire, RuleOnTheWire } from './wire.ts'

/** How often it asks how fresh the stream is. Between that it waits for entries, which come at once. */
const LOOK_EVERY_MS = 500
/** Members asked for at once: a fraction of a millisecond of Redis' time. */
const SCAN_COUNT = 1_000
/** Entries read at once; each holds up to 500 sessions. */
const ENTRIES_AT_ONCE = 100
/** Every command is answered within LOOK_EVERY_MS; a Redis that is silent for so long is gone or frozen. */
const SILENT_MS = 3_000
const CONNECT_MS = 2_000

interface Cursor {
  readonly epoch: string
  readonly position: number
  /** The entry's id in the Redis stream. */
  readonly id: string
}

interface Look extends Cursor {
  readonly whole: boolean
  readonly lagMs: number
}

const connect = async (url: string): Promise<Redis> => {
  // Only those who follow Redis need the package.
  const { Redis: Client } = await import('ioredis')
  // The guard reconnects by itself: a connection is used once, and nothing is ever sent twice.
  const redis = new Client(url, {
    lazyConnect: true, retryStrategy: () => null, maxRetriesPerRequest: 0, enableOfflineQueue: false,
    connectTimeout: CONNECT_MS, socketTimeout: SILENT_MS, autoResendUnfulfilledCommands: false,
  })
  // Every failure is also the rejection of a command.
  redis.on('error', () => {})
  await redis.connect()
  return redis
}

/** Said of a moment that is still to come: the clock was turned back, and what was said by it says nothing. */
const lagOf = (nowMs: number, freshMs: string | undefined): number =>
  freshMs === undefined || Number(freshMs) > nowMs ? Infinity : nowMs - Number(freshMs)

const look = async (redis: Redis): Promise<Look> => {
  const results = await redis
    .multi().hgetall(streamKeys.state).time().info('server').xrevrange(streamKeys.stream, '+', '-', 'COUNT', 1).exec()
  const [state, time, info, last] = (results ?? []).map(([error, value]) => {
    if (error !== null) throw error
    return value
  }) as [Record<string, string>, [string, string], string, [id: string, fields: string[]][]]
  const nowMs = Number(time[0]) * 1_000 + Number(time[1]) / 1_000
  const epoch = state['epoch'] ?? ''
  return {
    epoch,
    whole: isWhole(epoch, runIdOf(info)),
    position: Number(state['position'] ?? 0),
    id: last[0]?.[0] ?? '0-0',
    lagMs: lagOf(nowMs, state['freshMs']),
  }
}

/** Walks one sorted set. What is added meanwhile is on the stream behind the cursor. */
const walk = async (redis: Redis, key: string, each: (pairs: readonly string[]) => void): Promise<void> => {
  let cursor = '0'
  do {
    const [next, pairs] = await redis.zscan(key, cursor, 'COUNT', SCAN_COUNT)
    each(pairs)
    cursor = next
  } while (cursor !== '0')
}

const learnAll = async (redis: Redis, sink: Sink): Promise<void> => {
  // Rules first: they are few and kill many.
  await walk(redis, streamKeys.rules, (pairs) => {
    sink.learn({ rules: pairs.filter((_, at) => at % 2 === 0).map((text) => JSON.parse(text) as RuleOnTheWire) })
  })
  await walk(redis, streamKeys.tombstones, (pairs) => {
    const columns = new Map<string, { sessionIds: string[]; expiresMs: number[] }>()
    for (let at = 0; at + 1 < pairs.length; at += 2) {
      const read = readTombstoneMember(pairs[at] ?? '')
      if (read === null) continue
      const of = columns.get(read.issuer) ?? { sessionIds: [], expiresMs: [] }
      columns.set(read.issuer, of)
      of.sessionIds.push(read.sessionId)
      of.expiresMs.push(Number(pairs[at + 1]))
    }
    sink.learn({ ended: [...columns].map(([issuer, of]) => ({ issuer, ...of })) })
  })
}

type StreamAnswer = [key: string, entries: [id: string, fields: string[]][]][] | null

/** @returns the next entries; none where none came within `blockMs`. */
const readOn = async (redis: Redis, after: string, blockMs: number): Promise<{ id: string; position: number; entry: EntryOnTheWire }[]> => {
  const answer = (await redis.xread(
    'COUNT', ENTRIES_AT_ONCE, 'BLOCK', Math.max(1, Math.ceil(blockMs)), 'STREAMS', streamKeys.stream, after,
  )) as StreamAnswer
  return (answer?.[0]?.[1] ?? []).map(([id, [, position, , text = '{}']]) => ({
    id, position: Number(position), entry: JSON.parse(text) as EntryOnTheWire,
  }))
}

export const createRedisSource = ({ url }: { url: string }): Source => {
  let cursor: Cursor | null = null

  /** Learns what comes next. Forgets where it was if something was missed or cannot be read. */
  const step = async (redis: Redis, from: Cursor, sink: Sink, blockMs: number): Promise<Cursor | null> => {
    cursor = null
    const read = await readOn(redis, from.id, blockMs).catch((error: unknown) => {
      // A lost connection loses no place; an entry that is no entry must not be met again.
      if (!(error instanceof SyntaxError)) cursor = from
      throw error
    })
    let at = from
    for (const { id, position, entry } of read) {
      if (position !== at.position + 1) return null
      sink.learn(entry)
      at = { epoch: from.epoch, id, position }
    }
    cursor = at
    return at
  }

  const round = async (redis: Redis, sink: Sink): Promise<void> => {
    const askedMs = performance.now()
    const now = await look(redis)
    if (!now.whole) throw new Error('The stream in Redis is being written again')
    // A position ahead of the stream's: this Redis has lost something that we know.
    if (cursor === null || cursor.epoch !== now.epoch || cursor.position > now.position) {
      cursor = null
      await learnAll(redis, sink)
      cursor = { epoch: now.epoch, position: now.position, id: now.id }
    }
    let at: Cursor | null = cursor
    while (at !== null && at.position < now.position) {
      const before: Cursor = at
      at = await step(redis, at, sink, 1)
      // Nothing there, though the stream says that there was: it has been trimmed away.
      if (at === before) at = cursor = null
    }
    if (at === null) return
    sink.fresh(askedMs - now.lagMs)
    for (let leftMs = LOOK_EVERY_MS; at !== null && leftMs > 0; leftMs = askedMs + LOOK_EVERY_MS - performance.now()) {
      at = await step(redis, at, sink, leftMs)
    }
  }

  return {
    follow: async (sink, signal) => {
      const redis = await connect(url)
      const leave = () => redis.disconnect()
      signal.addEventListener('abort', leave)
      try {
        if (signal.aborted) return
        for (;;) await round(redis, sink)
      } finally {
        signal.removeEventListener('abort', leave)
        redis.disconnect()
      }
    },
  }
}
