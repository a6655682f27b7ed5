import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createTombstones } from '../../src/client/tombstones.ts'

const ISSUER = 'https://id.example'
const HOUR_MS = 3_600_000

describe('tombstones in memory', () => {
  it('holds exactly what was added, whatever the issuers and ids', () => {
    const pair = fc.tuple(fc.constantFrom(ISSUER, 'https://other.example', ''), fc.string({ unit: 'binary', maxLength: 40 }))
    fc.assert(fc.property(fc.array(pair, { maxLength: 300 }), fc.array(pair, { maxLength: 50 }), (dead, asked) => {
      const tombstones = createTombstones()
      for (const [issuer, id] of dead) tombstones.add(issuer, id, HOUR_MS)
      const truth = new Set(dead.map((one) => JSON.stringify(one)))
      for (const one of [...dead, ...asked]) expect(tombstones.has(...one)).toBe(truth.has(JSON.stringify(one)))
      expect(tombstones.size).toBe(truth.size)
    }))
  })

  it('knows ids apart that differ in little', () => {
    const tombstones = createTombstones()
    const ids = Array.from({ length: 200_000 }, (_, n) => String(300_000_000_000_000_000n + BigInt(n)))
    for (const [n, id] of ids.entries()) if (n % 2 === 0) tombstones.add(ISSUER, id, HOUR_MS)
    expect(ids.filter((id, n) => tombstones.has(ISSUER, id) !== (n % 2 === 0))).toEqual([])
    expect(ids.filter((id) => tombstones.has('https://id.exampl', id))).toEqual([])
  })

  it('forgets what has expired, prolongs what is added again, and never shortens', () => {
    const tombstones = createTombstones()
    for (let n = 0; n < 10_000; n += 1) tombstones.add(ISSUER, `short${n}`, 10_000)
    tombstones.add(ISSUER, 'long', 10_000)
    tombstones.add(ISSUER, 'long', HOUR_MS)
    tombstones.add(ISSUER, 'long', 5_000)
    const before = tombstones.bytes
    for (let shard = 0; shard < 64; shard += 1) tombstones.sweep(11_000)
    expect(tombstones.size).toBe(1)
    expect(tombstones.has(ISSUER, 'long')).toBe(true)
    expect(tombstones.has(ISSUER, 'short1')).toBe(false)
    expect(tombstones.bytes).toBeLessThanOrEqual(before / 4)
  })

  it('holds a million in tens of megabytes; prints what a check and an entry cost', () => {
    const tombstones = createTombstones()
    for (let n = 0; n < 1_000_000; n += 1) tombstones.add(ISSUER, randomUUID(), HOUR_MS)
    const live = Array.from({ length: 100_000 }, () => randomUUID())
    let hits = 0
    const since = process.cpuUsage()
    for (let round = 0; round < 20; round += 1) for (const id of live) if (tombstones.has(ISSUER, id)) hits += 1
    const { user, system } = process.cpuUsage(since)
    process.stdout.write(`${(tombstones.bytes / tombstones.size).toFixed(1)} bytes a tombstone, ${(2 / ((user + system) / 1e6)).toFixed(1)} M checks per second of processor time\n`)
    expect(hits).toBe(0)
    expect(tombstones.size).toBe(1_000_000)
    expect(tombstones.bytes).toBeLessThan(40_000_000)
  })
})
