/**
 * Rate limits: of one caller, and of refused tokens from one address.
 *
 * Counted in this process alone, so a fleet admits as many times more. Token buckets that refill steadily and
 * hold one period's worth. Memory is bounded: past the bound the bucket that was idle longest is forgotten, which
 * makes its owner a newcomer. Synchronous, because the way to a decision must not cost a promise.
 */
import { isIPv6 } from 'node:net'
import { LRUCache } from 'lru-cache'
import { CurfewError } from '../errors.ts'
import { reachOf } from './caller.ts'
import type { Caller } from './caller.ts'

// About 100 bytes each beside the key: some tens of MB at worst, and far more callers than one process meets.
const MAX_BUCKETS = 100_000

interface LimitsOptions {
  readonly callerPerSecond: number
  readonly refusedPerMinute: number
  /** Milliseconds; only differences count. */
  readonly now?: () => number
}

interface Limits {
  /** Counts one request. Never limits a caller with instance-wide `session.delete`. */
  admit(caller: Caller): void
  /** Counts one refused token from an address. */
  refused(address: string): void
}

interface Bucket {
  left: number
  atMs: number
}

const createBuckets = (options: { capacity: number; periodMs: number; now: () => number }) => {
  const { capacity, periodMs, now } = options
  const buckets = new LRUCache<string, Bucket>({ max: MAX_BUCKETS })
  return (key: string): boolean => {
    const nowMs = now()
    const bucket = buckets.get(key) ?? { left: capacity, atMs: nowMs }
    // A clock that jumps back refills nothing and takes nothing away.
    const refill = (Math.max(0, nowMs - bucket.atMs) * capacity) / periodMs
    const left = Math.min(capacity, bucket.left + refill)
    const taken = left >= 1
    buckets.set(key, { left: taken ? left - 1 : left, atMs: nowMs })
    return taken
  }
}

/** One customer's network holds a whole IPv6 /64, so that is what counts as one address. */
const networkOf = (address: string): string => {
  if (!isIPv6(address)) return address
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1]
  if (mapped !== undefined) return mapped
  const [head = '', tail] = address.split('%', 1)[0]?.split('::') ?? []
  const left = head === '' ? [] : head.split(':')
  const right = tail === undefined || tail === '' ? [] : tail.split(':')
  const middle = tail === undefined ? [] : Array.from({ length: Math.max(0, 8 - left.length - right.length) }, () => '0')
  return [...left, ...middle, ...right].slice(0, 4).map((group) => Number.parseInt(group, 16).toString(16)).join(':')
}

/** @throws (both functions) CurfewError too_many_requests. */
export const createLimits = (options: LimitsOptions): Limits => {
  const { now = () => performance.now() } = options
  const takeOfCaller = createBuckets({ capacity: options.callerPerSecond, periodMs: 1_000, now })
  const takeOfAddress = createBuckets({ capacity: options.refusedPerMinute, periodMs: 60_000, now })
  return {
    admit: (caller) => {
      if (reachOf(caller, 'session.delete') === 'instance') return
      const { issuer, subject } = caller.actor
      if (!takeOfCaller(JSON.stringify([issuer, subject]))) throw new CurfewError('too_many_requests')
    },
    refused: (address) => {
      if (!takeOfAddress(networkOf(address))) throw new CurfewError('too_many_requests')
    },
  }
}
