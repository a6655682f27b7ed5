/**
 * What a guard remembers of ended sessions: a set that is asked millions of times a second and nearly always says no.
 *
 * It keeps no strings, only 64 bits of a hash keyed anew in each process, and the second in which the entry may be
 * forgotten: 12 bytes in a slot. So a million tombstones cost tens of megabytes, are nothing that the garbage collector
 * must walk, and a check allocates nothing. The price: a session that is alive is taken for an ended one with a
 * chance of about one in 10^13 for each check (a million entries in 2^64); nobody can aim at it without the key. An
 * ended session is never taken for a live one.
 *
 * It is cut into shards that grow and are swept one at a time, so no single step takes longer than a millisecond.
 */
import { randomFillSync } from 'node:crypto'

export interface Tombstones {
  /** Remembers an ended session until `expiresMs` (since 1970). Again with a later end prolongs it; never shortens. */
  add(issuer: string, sessionId: string, expiresMs: number): void
  has(issuer: string, sessionId: string): boolean
  /** Forgets what has expired in the next shard; 64 calls have seen all. */
  sweep(nowMs: number): void
  readonly size: number
  /** Memory of the entries themselves. */
  readonly bytes: number
}

interface Shard {
  /** Three words a slot: both halves of the hash (0, 0: free) and the end in seconds since 1970. */
  slots: Int32Array
  mask: number
  used: number
}

const SHARDS = 64
const SHARD_BITS = 26
const WORDS = 3
const LEAST_SLOTS = 64
/** Fuller, a miss would probe too many slots. */
const MAX_LOAD = 0.7

const emptyShard = (slots: number): Shard => ({ slots: new Int32Array(slots * WORDS), mask: slots - 1, used: 0 })

/** Seconds pass 2^31 in 2038; as an unsigned word they last until 2106. */
const endOf = (slots: Int32Array, at: number): number => (slots[at + 2] ?? 0) >>> 0

/** Writes into the first free or equal slot. Returns true where it took a free one. */
const put = ({ slots, mask }: Shard, low: number, high: number, expires: number): boolean => {
  for (let slot = low & mask; ; slot = (slot + 1) & mask) {
    const at = slot * WORDS
    if (slots[at] === low && slots[at + 1] === high) {
      if (expires > endOf(slots, at)) slots[at + 2] = expires
      return false
    }
    if (slots[at] === 0 && slots[at + 1] === 0) {
      slots[at] = low
      slots[at + 1] = high
      slots[at + 2] = expires
      return true
    }
  }
}

/** The same entries in a table of the right size, without those that end before `second`. */
const rebuilt = (shard: Shard, second: number, room: number): Shard => {
  const { slots } = shard
  let live = 0
  for (let at = 0; at < slots.length; at += WORDS) {
    if ((slots[at] !== 0 || slots[at + 1] !== 0) && endOf(slots, at) >= second) live += 1
  }
  let size = LEAST_SLOTS
  while (size * MAX_LOAD < live + room) size *= 2
  const next = emptyShard(size)
  for (let at = 0; at < slots.length; at += WORDS) {
    const [low = 0, high = 0] = [slots[at], slots[at + 1]]
    if ((low === 0 && high === 0) || endOf(slots, at) < second) continue
    put(next, low, high, endOf(slots, at))
    next.used += 1
  }
  return next
}

export const createTombstones = (): Tombstones => {
  const shards = Array.from({ length: SHARDS }, () => emptyShard(LEAST_SLOTS))
  const [keyA = 0, keyB = 0, keyC = 0, keyD = 0] = randomFillSync(new Int32Array(4))
  let sweeping = 0
  // Nearly every question names the same issuer, so its part of the hash is kept.
  let lastIssuer: string | null = null
  const seeds = new Int32Array(2)
  /** The second half of the last hash. A typed word, because a pair would be an allocation. */
  const half = new Int32Array(1)

  /** Two lanes over the same characters, two at a time, each with its own key and factors (MurmurHash3's rounds). */
  const mix = (text: string, seedA: number, seedB: number): number => {
    let a = seedA ^ text.length
    let b = seedB ^ Math.imul(text.length, 0x9e3779b1)
    const even = text.length & ~1
    for (let at = 0; at < even; at += 2) {
      const pair = text.charCodeAt(at) | (text.charCodeAt(at + 1) << 16)
      a = Math.imul(((a << 13) | (a >>> 19)) ^ Math.imul(pair ^ keyC, 0xcc9e2d51), 0x85ebca6b)
      b = Math.imul(((b << 15) | (b >>> 17)) ^ Math.imul(pair ^ keyD, 0x1b873593), 0xc2b2ae35)
    }
    if (even !== text.length) {
      const code = text.charCodeAt(even)
      a = Math.imul(((a << 13) | (a >>> 19)) ^ Math.imul(code ^ keyC, 0xcc9e2d51), 0x85ebca6b)
      b = Math.imul(((b << 15) | (b >>> 17)) ^ Math.imul(code ^ keyD, 0x1b873593), 0xc2b2ae35)
    }
    a = Math.imul(a ^ (a >>> 16) ^ b, 0x7feb352d)
    b = Math.imul(b ^ (b >>> 15) ^ a, 0x846ca68b)
    a ^= (a >>> 16) ^ (b >>> 13)
    half[0] = b ^ (b >>> 16)
    return a
  }

  /** Returns the first half; the second is in `half` and never 0, because the pair (0, 0) marks a free slot. */
  const hash = (issuer: string, sessionId: string): number => {
    if (issuer !== lastIssuer) {
      seeds[0] = mix(issuer, keyA, keyB)
      seeds[1] = half[0] ?? 0
      lastIssuer = issuer
    }
    const first = mix(sessionId, (seeds[0] ?? 0) ^ keyB, (seeds[1] ?? 0) ^ keyA)
    if (half[0] === 0) half[0] = 1
    return first
  }

  return {
    add: (issuer, sessionId, expiresMs) => {
      const first = hash(issuer, sessionId)
      const second = half[0] ?? 0
      const number = first >>> SHARD_BITS
      let shard = shards[number] as Shard
      if (shard.used + 1 > (shard.mask + 1) * MAX_LOAD) {
        shard = rebuilt(shard, 0, shard.used >> 1)
        shards[number] = shard
      }
      if (put(shard, first, second, Math.min(Math.ceil(expiresMs / 1_000), 0xffff_ffff))) shard.used += 1
    },
    has: (issuer, sessionId) => {
      const first = hash(issuer, sessionId)
      const second = half[0]
      const { slots, mask } = shards[first >>> SHARD_BITS] as Shard
      for (let slot = first & mask; ; slot = (slot + 1) & mask) {
        const at = slot * WORDS
        const low = slots[at]
        if (low === first && slots[at + 1] === second) return true
        if (low === 0 && slots[at + 1] === 0) return false
      }
    },
    sweep: (nowMs) => {
      shards[sweeping] = rebuilt(shards[sweeping] as Shard, Math.floor(nowMs / 1_000), 0)
      sweeping = (sweeping + 1) % SHARDS
    },
    get size() {
      return shards.reduce((sum, { used }) => sum + used, 0)
    },
    get bytes() {
      return shards.reduce((sum, { slots }) => sum + slots.byteLength, 0)
    },
  }
}
