/**
 * A resource server's process with a guard, for the bench.
 *
 * `follow`: notes when each session became known (from then on `check` refuses it) and, told to stop, prints the times.
 * `checks`: how many checks one processor second makes, with so many tombstones held, beside a plain Set of strings.
 */
import { randomUUID } from 'node:crypto'
import { createGuardOver } from '../dist/client/guard.js'
import { createHttpSource } from '../dist/client/http-source.js'
import { createRedisSource } from '../dist/client/redis-source.js'

const ISSUER = 'https://login.example'
const TOMBSTONES = 1_000_000
const LIVE = 100_000
const CHECKS = 5_000_000

const follow = async (/** @type {{ redis?: string, url?: string, token?: string }} */ { redis, url = '', token = '' }) => {
  const source = redis === undefined ? createHttpSource({ url, token }) : createRedisSource({ url: redis })
  /** @type {[id: string, atMs: number][]} */
  const learnt = []
  const guard = await createGuardOver({
    follow: (sink, signal) => source.follow({
      fresh: sink.fresh,
      learn: (entry) => {
        sink.learn(entry)
        const atMs = performance.timeOrigin + performance.now()
        for (const { sessionIds } of entry.ended ?? []) for (const id of sessionIds) learnt.push([id, atMs])
      },
    }, signal),
  })
  process.stdout.write(`GUARD ready, ${guard.holds.tombstones} tombstones\n`)
  process.once('SIGTERM', async () => {
    await guard.close()
    process.stdout.write(`LEARNT ${JSON.stringify(learnt)}\n`, () => process.exit(0))
  })
}

/** Checks per second of this process' processor time: others on the machine do not count. */
const rate = (/** @type {(id: string) => boolean} */ check, /** @type {readonly string[]} */ ids) => {
  let hits = 0
  const since = process.cpuUsage()
  for (let done = 0; done < CHECKS; done += ids.length) for (const id of ids) if (check(id)) hits += 1
  const { user, system } = process.cpuUsage(since)
  if (hits > 0) throw new Error('A live session was refused')
  return CHECKS / ((user + system) / 1e6)
}

const checks = async () => {
  const dead = Array.from({ length: TOMBSTONES }, () => randomUUID())
  const live = Array.from({ length: LIVE }, () => String(randomUUID()))
  const expiresMs = dead.map(() => Date.now() + 86_400_000)
  const cutoffMs = Date.now() - 86_400_000
  const rules = Array.from({ length: 100 }, (_, n) => ({
    id: randomUUID(), issuer: ISSUER, organization: null, user: `user-${n}`, cutoffMs, excludeUsers: [], excludeSessions: [], expiresMs: Date.now() + 86_400_000,
  }))
  const guard = await createGuardOver({
    follow: async (sink) => {
      sink.learn({ ended: [{ issuer: ISSUER, sessionIds: dead, expiresMs }], rules })
      sink.fresh(performance.now() + 3_600_000)
      await new Promise(() => {})
    },
  })
  const question = { issuer: ISSUER, sessionId: '', subject: 'somebody', organization: 'org-1', born: Date.now() / 1_000 }
  const check = (/** @type {string} */ id) => {
    question.sessionId = id
    return guard.check(question) !== 'active'
  }
  const set = new Set(/** @type {string[]} */ (dead))
  const inSet = (/** @type {string} */ id) => set.has(id)
  const rounds = Array.from({ length: 5 }, () => ({ guard: rate(check, live), set: rate(inSet, live) }))
  const heapBefore = process.memoryUsage().heapUsed
  for (let n = 0; n < 1_000_000; n += 1) check(live[n % LIVE] ?? '')
  process.stdout.write(`RESULT ${JSON.stringify({
    rounds, tombstones: guard.holds.tombstones, bytes: guard.holds.bytes,
    heapBytesPerCheck: Math.max(0, process.memoryUsage().heapUsed - heapBefore) / 1_000_000,
  })}\n`)
  process.exit()
}

await (process.argv[2] === 'checks' ? checks() : follow(JSON.parse(process.argv[3] ?? '{}')))
