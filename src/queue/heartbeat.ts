/**
 * The heartbeat: tells within 300 ms that Redis is away, frozen or slow, whatever the state of the connections that
 * work for their living. Its connection is its own and carries nothing but PING.
 *
 * One PING at a time, each 50 ms. No answer for 250 ms, or a lost connection: late. An answer: good. A pause of this
 * very process is not taken for one of Redis': a beat that itself came late waits for the next before it judges.
 *
 * Where there is no Redis to watch, `createTicks` beats without asking anyone.
 */
import type { Redis } from 'ioredis'
import { createHeartbeatRedis } from '../store/redis.ts'
import type { Log } from '../telemetry.ts'
import { createSeldom } from './seldom.ts'

export interface BeatListener {
  onGood(): void
  onLate(): void
}

export interface Heartbeat {
  start(listener: BeatListener): Promise<void>
  stop(): Promise<void>
}

/** Together 300 ms from the moment Redis falls silent, at worst. */
const EVERY_MS = 50
const LATE_AFTER_MS = 250
/** Timers are a little early or late; a beat must not be lost to that. */
const SLACK_MS = 5
/** After so long without an answer the connection itself is suspected: a peer that vanished sends no farewell. */
const RECONNECT_AFTER_MS = 2_000

export const createHeartbeat = (deps: { redisUrl: string; log: Log }): Heartbeat => {
  const { redisUrl, log } = deps
  const seldom = createSeldom(log)
  let redis: Redis | undefined
  let timer: NodeJS.Timeout | undefined

  return {
    start: async ({ onGood, onLate }) => {
      if (redis !== undefined) return
      const client = createHeartbeatRedis(redisUrl, (error) => seldom.warn({ event: 'queue.heartbeat', err: error }, 'the heartbeat lost Redis'))
      redis = client
      let lastBeatMs = performance.now()
      let lastGoodMs = lastBeatMs
      // The PING under way. An answer to a former one, given up since, says nothing about now.
      let asked: { readonly atMs: number } | null = null

      const lost = () => {
        asked = null
        onLate()
        const now = performance.now()
        // Not while it is reconnecting already: that would end its attempts.
        if (now - lastGoodMs < RECONNECT_AFTER_MS || !['ready', 'connect'].includes(client.status)) return
        lastGoodMs = now
        client.disconnect(true)
      }
      const ping = (atMs: number) => {
        const mine = { atMs }
        asked = mine
        client.ping().then(
          () => {
            if (asked !== mine) return
            asked = null
            lastGoodMs = performance.now()
            onGood()
          },
          () => { if (asked === mine) lost() },
        )
      }
      client.on('close', lost)
      timer = setInterval(() => {
        const now = performance.now()
        const paused = now - lastBeatMs > EVERY_MS + LATE_AFTER_MS / 2
        lastBeatMs = now
        if (asked === null) ping(now)
        else if (!paused && now - asked.atMs >= LATE_AFTER_MS - SLACK_MS) lost()
      }, EVERY_MS)
    },
    stop: async () => {
      clearInterval(timer)
      redis?.removeAllListeners('close')
      redis?.disconnect()
      redis = undefined
    },
  }
}

/** Beats as a heartbeat whose every answer is good: for a store that is Postgres, which has no faster truth to tell. */
export const createTicks = (): Heartbeat => {
  let timer: NodeJS.Timeout | undefined
  return {
    start: async ({ onGood }) => {
      timer ??= setInterval(onGood, EVERY_MS)
    },
    stop: async () => {
      clearInterval(timer)
      timer = undefined
    },
  }
}
