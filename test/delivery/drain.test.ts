import { setTimeout as wait } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { createBreaker } from '../../src/delivery/breaker.ts'
import { runDrain } from '../../src/delivery/drain.ts'
import { outcomeOf } from '../../src/delivery/outcome.ts'
import { createPace } from '../../src/delivery/pace.ts'
import { createReadAhead } from '../../src/delivery/read-ahead.ts'
import { createRecorder } from '../../src/delivery/recorder.ts'
import { createSlots } from '../../src/delivery/slots.ts'
import type { DueDelivery } from '../../src/store/drains.ts'

const due = (count: number): DueDelivery[] => Array.from({ length: count }, (_, at) => ({
  id: String(at), sessionId: `s${at}`, clientId: 'app', sid: `s${at}`, sub: 'u', issuer: 'https://id.example', termination: null, completion: null, ofUser: false, ofRevocation: false, attempts: 0, moot: false,
  ageMs: 0, dueAt: String(at).padStart(6, '0'),
}))

describe('a drain', () => {
  it('does not end while an outcome is still being written, or its delivery would be read and told again', async () => {
    // The first write is asked for by a full batch, the second by the clock while the first still runs.
    const written = new Set<string>()
    const signal = new AbortController().signal
    const recorder = createRecorder({
      leaseMs: 60_000, signal, onFailure: (error) => { throw error },
      write: async (outcomes) => {
        await wait(120)
        for (const { id } of outcomes) written.add(id)
        return { same: true, recorded: outcomes.length, failed: 0 }
      },
    })
    const all = due(130)
    const ahead = createReadAhead({
      readDue: async ({ inHand, after, limit }) =>
        all.filter(({ id, dueAt }) => !inHand.includes(id) && !written.has(id) && (after === null || dueAt > after.dueAt)).slice(0, limit),
    })
    const sent: string[] = []
    await runDrain({
      receiver: {
        id: 'r', type: 'backchannel_logout', url: 'https://rp.example', clientId: 'app', subject: 'sid', alg: 'ES256', secrets: [], maxConcurrency: 64,
        ratePerSecond: null, consecutiveFailures: 0, succeededBefore: true, version: '1',
      },
      ahead, recorder, signal, isWanted: () => false, leaseMs: 60_000, slots: createSlots(64), onSlow: () => {}, onOutcome: () => {},
      pace: createPace({ maxConcurrency: 64, known: 'quick' }), breaker: createBreaker({ consecutiveFailures: 0, random: Math.random }),
      send: async (delivery) => {
        sent.push(delivery.id)
        await wait(1)
        const attempt = { answer: { status: 200, retryAfterMs: null, body: '' }, verdict: { verdict: 'delivered' } } as const
        return outcomeOf({ delivery, attempt, random: Math.random })
      },
    })
    expect(written.size).toBe(130)
    expect(new Set(sent).size).toBe(sent.length)
  })
})
