/**
 * The stream channel: a local channel over the Redis that must not evict. For each ended session a tombstone, for each
 * cutoff rule the rule; in sets for snapshots and on a stream for those who follow, written together by one script, so
 * that a snapshot and what comes after it leave nothing out. Everything may be repeated.
 *
 * A Redis that started anew has lost what it had not kept, or all of it. Its run id then differs from the one in the
 * epoch: it counts as not whole, and what could be missing is written again before a new epoch is set. What was kept is
 * always a beginning of what was written, so what could be missing was committed after `fresh` as it stands there.
 */
import { randomUUID } from 'node:crypto'
import type { Redis } from 'ioredis'
import { isWhole, runIdOf, streamKeys, tombstoneMember } from '../client/redis-names.ts'
import type { EndedOnTheWire, EntryOnTheWire, RuleOnTheWire } from '../client/wire.ts'
import {
  advanceScript, openScript, pruneScript, putRulesScript, putTombstonesScript, restoreScript, takeLockScript,
} from './stream-scripts.ts'

/** Tombstones of one call: as many as the largest batch of log-outs, and a millisecond of Redis' time. */
const TOMBSTONES_PER_CALL = 500
/** How long entries stay on the stream. Who was away for longer takes a snapshot. */
const KEEP_MS = 120_000
/** Expired tombstones removed in one call, and calls in a row: 100,000 a second at most, in steps of milliseconds. */
const PRUNED_PER_CALL = 5_000
const PRUNES = 20
/** Who writes a Redis again renews its turn with every page. */
const LOCK_MS = 30_000

/** A session that has ended, as far as its tombstones go: one for its id, and one for each other sid. */
export interface EndedTarget {
  readonly sessionId: string
  readonly sids: readonly string[]
  readonly issuer: string
  readonly expiresAtMs: number
}

export interface StreamState {
  /** False: it must be written again before anyone may rely on it. */
  readonly whole: boolean
  /** The highest commit on it, and the highest version of a rule. */
  readonly commit: number
  readonly rule: bigint
  /** Everything committed before this (the database's clock) is on it; null: nothing is known to be. */
  readonly freshDbMs: number | null
}

export interface Restoring {
  /** Puts tombstones back, without telling those who follow. @throws where someone else has taken over. */
  put(ended: readonly EndedOnTheWire[]): Promise<void>
  /** Sets a new epoch. False where this Redis started anew meanwhile: then all of it was in vain. */
  open(commit: string | null): Promise<boolean>
}

export interface StreamChannel {
  /** Puts the tombstones of a commit on the stream, and that it is there. Rejects where Redis did not confirm. */
  announce(commitId: string, ended: readonly EndedTarget[]): Promise<void>
  /** Puts rules on the stream: all after one version, up to another. False where it is not at the former (any more). */
  announceRules(rules: readonly RuleOnTheWire[], versions: { after: bigint; to: bigint }): Promise<boolean>
  state(): Promise<StreamState>
  /** Says that everything committed before `dbMs` is on it, which was `agoMs` ago. False where it is not whole. */
  advance(dbMs: number, agoMs: number): Promise<boolean>
  /** Begins to write it again; null where someone else is at it. Distrusting, it forgets how fresh it was said to be, and which rules are there. */
  restore(options: { distrust: boolean }): Promise<Restoring | null>
  /** Removes what has expired. */
  prune(): Promise<void>
}

/** By issuer, in columns. */
const columnsOf = (targets: readonly { issuer: string; sessionId: string; expiresMs: number }[]): EndedOnTheWire[] => {
  const byIssuer = new Map<string, { sessionIds: string[]; expiresMs: number[] }>()
  for (const { issuer, sessionId, expiresMs } of targets) {
    let of = byIssuer.get(issuer)
    if (of === undefined) byIssuer.set(issuer, (of = { sessionIds: [], expiresMs: [] }))
    of.sessionIds.push(sessionId)
    of.expiresMs.push(expiresMs)
  }
  return [...byIssuer].map(([issuer, of]) => ({ issuer, ...of }))
}

/** @param maxTokenLifetimeSeconds how long a token can outlive its session; a tombstone stays at least as long. */
export const createStreamChannel = (deps: { redis: Redis; maxTokenLifetimeSeconds: number; now: () => number }): StreamChannel => {
  const { redis, maxTokenLifetimeSeconds, now } = deps
  const { tombstones, rules: rulesKey, stream, state } = streamKeys

  const announceSlice = async (commitId: string, slice: readonly { issuer: string; sessionId: string; expiresMs: number }[]) => {
    const entry: EntryOnTheWire = { ended: columnsOf(slice) }
    const pairs = slice.flatMap(({ issuer, sessionId, expiresMs }) => [expiresMs, tombstoneMember(issuer, sessionId)])
    await putTombstonesScript.run(redis, [tombstones, stream, state], [commitId, JSON.stringify(entry), KEEP_MS, ...pairs])
  }

  return {
    announce: async (commitId, ended) => {
      const tokensEndMs = now() + maxTokenLifetimeSeconds * 1_000
      const targets = ended.flatMap(({ issuer, sessionId, sids, expiresAtMs }) => {
        const expiresMs = Math.ceil(Math.max(expiresAtMs, tokensEndMs))
        return [sessionId, ...sids].map((sid) => ({ issuer, sessionId: sid, expiresMs }))
      })
      const slices = Array.from({ length: Math.max(1, Math.ceil(targets.length / TOMBSTONES_PER_CALL)) }, (_, at) =>
        targets.slice(at * TOMBSTONES_PER_CALL, (at + 1) * TOMBSTONES_PER_CALL))
      await Promise.all(slices.map((slice) => announceSlice(commitId, slice)))
    },
    announceRules: async (rules, { after, to }) => {
      const entry: EntryOnTheWire = { rules }
      const pairs = rules.flatMap((rule) => [rule.expiresMs, JSON.stringify(rule)])
      const put = await putRulesScript.run(redis, [rulesKey, stream, state], [String(to), JSON.stringify(entry), KEEP_MS, String(after), ...pairs])
      return put === 1
    },
    state: async () => {
      const results = await redis.multi().hgetall(state).info('server').exec()
      const [fields, info] = (results ?? []).map(([error, value]) => {
        if (error !== null) throw error
        return value
      }) as [Record<string, string>, string]
      return {
        whole: isWhole(fields['epoch'], runIdOf(info)),
        commit: Number(fields['commit'] ?? 0),
        rule: BigInt(fields['rule'] ?? 0),
        freshDbMs: fields['freshDbMs'] === undefined ? null : Number(fields['freshDbMs']),
      }
    },
    advance: async (dbMs, agoMs) => (await advanceScript.run(redis, [state], [dbMs, agoMs])) === 1,
    prune: async () => {
      for (let call = 0; call < PRUNES; call += 1) {
        const removed = await pruneScript.run(redis, [tombstones, rulesKey], [PRUNED_PER_CALL])
        if (Number(removed) < PRUNED_PER_CALL) return
      }
    },
    restore: async ({ distrust }) => {
      const token = randomUUID()
      const runId = await takeLockScript.run(redis, [state, `${state}:lock`], [token, LOCK_MS, distrust ? 1 : 0])
      if (typeof runId !== 'string') return null
      return {
        put: async (ended) => {
          for (const { issuer, sessionIds, expiresMs } of ended) {
            for (let from = 0; from < sessionIds.length; from += TOMBSTONES_PER_CALL) {
              const pairs = sessionIds.slice(from, from + TOMBSTONES_PER_CALL)
                .flatMap((sessionId, at) => [expiresMs[from + at] ?? 0, tombstoneMember(issuer, sessionId)])
              const mine = await restoreScript.run(redis, [tombstones, `${state}:lock`], [token, LOCK_MS, ...pairs])
              if (mine !== 1) throw new Error('Someone else writes the stream in Redis again')
            }
          }
        },
        open: async (commit) =>
          (await openScript.run(redis, [state, `${state}:lock`], [token, runId, randomUUID(), commit ?? 0])) === 1,
      }
    },
  }
}
