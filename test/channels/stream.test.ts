import { execFile } from 'node:child_process'
import { cp, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { createGuard } from '../../src/client/index.ts'
import { streamKeys, tombstoneMember } from '../../src/client/redis-names.ts'
import { redisMissing } from '../harness/redis.ts'
import { ISSUER } from '../harness/seed.ts'
import { startStreamRig } from './stream-rig.ts'
import type { StreamRig } from './stream-rig.ts'

const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url))

describe.skipIf(redisMissing)('the stream in Redis', () => {
  let rig: StreamRig

  beforeAll(async () => {
    rig = await startStreamRig()
  })
  afterAll(() => rig.stop())
  beforeEach(async () => {
    await rig.database.sql.query('TRUNCATE sessions, session_clients, session_events, commits, cutoff_rules, stream_entries')
    await rig.redis.client.flushall()
    await rig.untilWhole()
  })

  const held = async (id: string) => (await rig.redis.client.zscore(streamKeys.tombstones, tombstoneMember(ISSUER, id))) !== null
  /** Recorded as enforced, so that only the stream itself can still know what it lacks. */
  const untilEnforced = () =>
    vi.waitUntil(async () => (await rig.database.sql.query('SELECT FROM commits WHERE enforced_at IS NULL')).rowCount === 0, { timeout: 10_000 })

  it('refuses in a guard what was committed before it started and after', async () => {
    const [before = '', after = '', alive = ''] = await rig.live(3)
    await rig.end([before])
    await rig.keepStream.tick()
    const guard = await rig.guard()
    expect(rig.check(guard, before)).toBe('terminated')
    expect(rig.check(guard, after)).toBe('active')
    await rig.end([after])
    await rig.until(() => rig.check(guard, after) === 'terminated')
    expect(rig.check(guard, alive)).toBe('active')
  })

  it('needs an account that may only read', async () => {
    await rig.redis.client.call('ACL', 'SETUSER', 'guard', 'on', '>secret', '~{curfew}:*', '+@read', '+@connection', '+multi', '+exec', '+info', '+time')
    const [dead = '', later = ''] = await rig.live(2)
    await rig.end([dead])
    await rig.keepStream.tick()
    const guard = await createGuard({ redis: rig.redis.url.replace('redis://', 'redis://guard:secret@'), startWithinMs: 5_000 })
    expect(rig.check(guard, dead)).toBe('terminated')
    await rig.end([later])
    await rig.until(() => rig.check(guard, later) === 'terminated')
    await guard.close()
  })

  it('says that a rule kills, to whoever starts later and to whoever follows', async () => {
    const [id = ''] = await rig.live(1)
    const guard = await rig.guard()
    await rig.setRule({ user: 'u1', excludeSessions: ['kept'] })
    await rig.announceRules()
    await rig.until(() => rig.check(guard, id) === 'cutoff')
    expect(rig.check(guard, 'kept')).toBe('active')
    const later = await rig.guard()
    expect(rig.check(later, id)).toBe('cutoff')
    const born = Date.now() / 1_000 + 60
    expect(later.check({ issuer: ISSUER, sessionId: id, subject: 'u1', born })).toBe('active')
    expect(later.check({ issuer: ISSUER, sessionId: id, subject: 'u2', born: 0 })).toBe('active')
  })

  it('learns of a rule at once, also where the command sets it and nobody does upkeep', async () => {
    const guard = await rig.guard()
    const set = ['cutoff', 'set', '--issuer', ISSUER, '--user', 'u1', '--reason', 'INC-1']
    const env = { PATH: process.env['PATH'], DATABASE_URL: rig.database.url, REDIS_URL: rig.redis.url }
    const { stdout } = await promisify(execFile)(process.execPath, [cli, ...set], { env })
    expect(stdout).not.toContain('could not')
    await rig.until(() => rig.check(guard, 'any') === 'cutoff')
  })

  it('leaves no rule out, however many are set and announced at once', async () => {
    const guard = await rig.guard()
    await Promise.all(Array.from({ length: 20 }, async () => {
      await rig.setRule({ user: 'u9' })
      await rig.announceRules()
    }))
    await rig.until(() => guard.holds.rules === 20)
  })

  it('G2: an emptied Redis serves no one until everything in force is back', async () => {
    const ids = await rig.live(3)
    await rig.end(ids)
    await rig.setRule({ user: 'u9' })
    await untilEnforced()
    await rig.redis.client.flushall()
    const waiting = await rig.guard({ startWithinMs: 300, maxStaleMs: 5_000 })
    expect(waiting.staleMs).toBe(Infinity)
    expect(rig.check(waiting, ids[0] ?? '')).toBe('stale')
    await rig.untilWhole()
    await rig.until(() => waiting.staleMs < 5_000)
    for (const id of ids) expect(rig.check(waiting, id)).toBe('terminated')
    expect(waiting.check({ issuer: ISSUER, subject: 'u9', born: 0 })).toBe('cutoff')
  })

  it('G2: a Redis restored from an old file gets back what it had lost, and guards hear of it', async () => {
    const [kept = '', lost = '', late = ''] = await rig.live(3)
    await rig.end([kept])
    await untilEnforced()
    await rig.keepStream.tick()
    const guard = await rig.guard()
    const folder = (await rig.redis.client.config('GET', 'dir') as string[])[1] ?? ''
    const copy = await mkdtemp(join(tmpdir(), 'curfew-test-aof-'))
    await cp(join(folder, 'appendonlydir'), copy, { recursive: true })
    await rig.end([lost])
    await untilEnforced()
    await rig.setRule({ user: 'u9' })
    await rig.keepStream.tick()
    await rig.redis.kill()
    await rm(join(folder, 'appendonlydir'), { recursive: true })
    await cp(copy, join(folder, 'appendonlydir'), { recursive: true })
    await rig.redis.restart({ empty: false })
    expect([await held(kept), await held(lost)]).toEqual([true, false])
    await rig.untilWhole()
    expect([await held(kept), await held(lost)]).toEqual([true, true])
    const fresh = await rig.guard()
    expect([rig.check(fresh, kept), rig.check(fresh, lost)]).toEqual(['terminated', 'terminated'])
    expect(fresh.check({ issuer: ISSUER, subject: 'u9', born: 0 })).toBe('cutoff')
    await rig.end([late])
    await rig.until(() => rig.check(guard, late) === 'terminated')
    await rm(copy, { recursive: true })
  })

  it('notices a loss that no restart explains: commits recorded as enforced that it does not have', async () => {
    const [kept = '', lost = ''] = await rig.live(2)
    await rig.end([kept])
    const state = await rig.redis.client.hgetall(streamKeys.state)
    await rig.end([lost])
    await untilEnforced()
    await rig.redis.client.zrem(streamKeys.tombstones, tombstoneMember(ISSUER, lost))
    await rig.redis.client.hset(streamKeys.state, state)
    await rig.untilWhole()
    expect(await held(lost)).toBe(true)
    expect(await rig.redis.client.hget(streamKeys.state, 'epoch')).not.toBe(state['epoch'])
  })

  it('does not lose a rule that is announced while the Redis under it is restored', async () => {
    await rig.setRule({ user: 'u8' })
    await rig.setRule({ user: 'u9' })
    const [first, second] = (await rig.database.sql.query('SELECT version::text FROM cutoff_rules ORDER BY version')).rows
    const after = BigInt(first.version)
    expect(await rig.stream.announceRules([], { after, to: BigInt(second.version) })).toBe(false)
    await rig.keepStream.tick()
    expect(await rig.redis.client.zcard(streamKeys.rules)).toBe(2)
  })

  it('a guard takes a new snapshot where entries that it had not read were trimmed', async () => {
    const guard = await rig.guard()
    const [first = '', missed = '', last = ''] = await rig.live(3)
    await rig.end([first])
    await rig.until(() => rig.check(guard, first) === 'terminated')
    // In one step, so that the guard cannot read in between: an entry that vanishes before anyone sees it.
    await rig.redis.client.multi()
      .zadd(streamKeys.tombstones, Date.now() + 3_600_000, tombstoneMember(ISSUER, missed))
      .hincrby(streamKeys.state, 'position', 1).exec()
    await rig.end([last])
    await rig.until(() => rig.check(guard, last) === 'terminated')
    await rig.until(() => rig.check(guard, missed) === 'terminated')
  })

  it('entries told twice or in another order change nothing', async () => {
    const guard = await rig.guard()
    const ids = await rig.live(4)
    await rig.end(ids)
    await rig.until(() => ids.every((id) => rig.check(guard, id) === 'terminated'))
    const entries = await rig.redis.client.xrange(streamKeys.stream, '-', '+')
    let position = Number(await rig.redis.client.hget(streamKeys.state, 'position'))
    for (const [, fields] of entries.toReversed().concat(entries)) {
      position += 1
      await rig.redis.client.multi().hset(streamKeys.state, 'position', position).xadd(streamKeys.stream, '*', 'n', position, 'e', fields[3] ?? '').exec()
    }
    const [next = ''] = await rig.live(1)
    await rig.end([next])
    await rig.until(() => rig.check(guard, next) === 'terminated')
    expect(guard.holds.tombstones).toBe(5)
    expect(ids.map((id) => rig.check(guard, id))).toEqual(ids.map(() => 'terminated'))
  })

  it('a guard started in the middle of a flood misses nothing', async () => {
    const ids = await rig.live(1_500)
    const flood = (async () => {
      for (let from = 0; from < ids.length; from += 10) await rig.end(ids.slice(from, from + 10))
    })()
    await rig.until(() => true)
    const guards = await Promise.all([rig.guard(), rig.guard()])
    await flood
    for (const guard of guards) {
      await vi.waitUntil(async () => {
        // What a moment of a slow Redis left to upkeep.
        await rig.enforcement.enforcePending()
        return ids.every((id) => rig.check(guard, id) === 'terminated')
      }, { timeout: 15_000, interval: 50 })
    }
  })

  it('says how stale it is, and closes or stays open as its user chose; a Redis that comes back is followed again', async () => {
    const [dead = '', alive = '', later = ''] = await rig.live(3)
    await rig.end([dead])
    await rig.keepStream.tick()
    const errors: unknown[] = []
    const closed = await rig.guard({ maxStaleMs: 1_000, onError: (error) => errors.push(error) })
    const open = await rig.guard({ maxStaleMs: 1_000, onStale: 'failOpen' })
    expect(closed.staleMs).toBeLessThan(1_000)
    await rig.redis.kill()
    await rig.until(() => rig.check(closed, alive) === 'stale')
    expect(closed.staleMs).toBeGreaterThanOrEqual(1_000)
    expect(rig.check(closed, dead)).toBe('terminated')
    expect([rig.check(open, dead), rig.check(open, alive)]).toEqual(['terminated', 'active'])
    await rig.end([later])
    expect(errors.length).toBeGreaterThan(0)
    await rig.redis.restart({ empty: true })
    await vi.waitUntil(() => rig.connection.status === 'ready', { timeout: 10_000 })
    await rig.database.sql.query(`UPDATE commits SET committed_at = committed_at - interval '1 minute'`)
    await rig.enforcement.enforcePending()
    // The guard comes back when its pause is over; until then upkeep goes on saying how fresh the stream is.
    await vi.waitUntil(async () => {
      await rig.keepStream.tick()
      return closed.staleMs < 1_000
    }, { timeout: 15_000, interval: 100 })
    expect([dead, alive, later].map((id) => rig.check(closed, id))).toEqual(['terminated', 'active', 'terminated'])
  })

  it('counts as stale what stands on the stream too late, however well Redis answers', async () => {
    const guard = await rig.guard({ maxStaleMs: 600, onStale: 'failClosed' })
    const [alive = ''] = await rig.live(1)
    // Nobody does upkeep any more: Redis answers, but nobody says that it knows everything.
    await rig.until(() => rig.check(guard, alive) === 'stale')
    await vi.waitUntil(async () => {
      await rig.keepStream.tick()
      return rig.check(guard, alive) === 'active'
    }, { timeout: 15_000, interval: 20 })
  })

  it('removes tombstones and rules that have expired', async () => {
    const longAgo = Date.now() - 120_000
    await rig.redis.client.zadd(streamKeys.tombstones, longAgo, tombstoneMember(ISSUER, 'old'), Date.now() + 60_000, tombstoneMember(ISSUER, 'new'))
    await rig.redis.client.zadd(streamKeys.rules, longAgo, '{}')
    await rig.keepStream.tick()
    expect([await held('old'), await held('new'), await rig.redis.client.zcard(streamKeys.rules)]).toEqual([false, true, 0])
  })
})
