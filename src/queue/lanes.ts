/**
 * The lanes: queues, each with its own workers, so that none waits behind another.
 *
 * `interactive` carries batches of commands, authenticated. `bulk`, `route` and `deliver` carry wake-ups: an id and nothing
 * else, so they need no secret; a forged one causes a look and no harm. (Upkeep is a timer in each worker process, not
 * a lane: a lost Redis must not lose it.)
 */
interface Lane {
  /** Jobs at once in one worker process. */
  readonly concurrency: number
}

export const lanes = {
  // Two batches at once keep Postgres busy while an answer travels; more only adds contention for two cores.
  interactive: { concurrency: 2 },
  // One that waits for a session that somebody holds must not hold up another; how many chunks run at once is decided by
  // what else there is to do (`termination/revoke-pace.ts`).
  bulk: { concurrency: 64 },
  // One router a process; it takes up everything there is before it ends.
  route: { concurrency: 1 },
  // A drain that waits for a hanging receiver holds one of these, and must not hold up another's (G7).
  deliver: { concurrency: 64 },
} as const satisfies Record<string, Lane>

export type LaneName = keyof typeof lanes
export type WakeLane = Exclude<LaneName, 'interactive'>
export const laneNames = Object.keys(lanes) as LaneName[]

/** A lane's name in the store. The braces are a hash tag: in a Redis cluster, all keys of a lane live together. */
export const queueName = (lane: LaneName): string => `{${lane}}`

/** Before every key in Redis. */
export const KEY_PREFIX = 'curfew'

/**
 * Events kept for a lane. They carry the results, so they are what the queue's memory goes to: a batch makes about
 * five, of which one holds up to 45 KB. A reader that is further behind than this reads Postgres instead.
 */
export const EVENTS_KEPT = 1_000

/** What was set aside or failed stays this long, at most so many, for someone to look at. */
export const FAILED_KEPT = { count: 200, age: 86_400 } as const
