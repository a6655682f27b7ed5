import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { TerminateAnswer, TerminateCommand } from '../../src/model.ts'
import { JobRefused, createSeals, newJobId } from '../../src/queue/jobs.ts'
import type { QueueSecrets } from '../../src/queue/jobs.ts'
import { command } from '../harness/seed.ts'

const secrets: QueueSecrets = { secret: randomBytes(32), secretPrevious: null }
const now = Date.parse('2026-11-23T12:00:00Z')
const at = (ms: number, of = secrets) => createSeals({ secrets: of, now: () => ms })
const details = { sequence: '2', changeDate: '2026-11-23T12:00:00.000Z', resourceOwner: 'o1' }
const answers: TerminateAnswer[] = [{ outcome: 'ended', details }, { outcome: 'unknown' }]

const reasonOf = (run: () => unknown): string => {
  try {
    run()
  } catch (error) {
    if (error instanceof JobRefused) return error.reason
    throw error
  }
  return 'accepted'
}

const anyText = fc.string({ unit: 'binary', maxLength: 20 })
const anyCommand: fc.Arbitrary<TerminateCommand> = fc.record({
  sessionId: anyText,
  issuers: fc.array(anyText, { maxLength: 3 }),
  actor: fc.record({ issuer: anyText, subject: anyText }),
  mode: fc.constantFrom('logout', 'revoke'),
  reason: fc.option(anyText),
})
const anyAnswer: fc.Arbitrary<TerminateAnswer> = fc.oneof(
  fc.record({ outcome: fc.constantFrom('unknown', 'busy') }),
  fc.record({
    outcome: fc.constantFrom('ended', 'before'),
    details: fc.record({ sequence: anyText, changeDate: anyText, resourceOwner: anyText }),
  }),
) as fc.Arbitrary<TerminateAnswer>

describe('a sealed batch', () => {
  it('opens to the same commands, whatever is in them', () => {
    fc.assert(
      fc.property(fc.array(anyCommand, { maxLength: 20 }), (commands) => {
        const id = newJobId()
        expect(at(now).openBatch(id, at(now).sealBatch(id, commands)).commands).toEqual(commands)
      }),
    )
  })

  it('writes an asker once, so that 500 commands of one caller are little more than their ids', () => {
    const shared = command('x')
    const ids = Array.from({ length: 500 }, (_, n) => `session-${n}`)
    const sealed = at(now).sealBatch('b1', ids.map((sessionId) => ({ ...shared, sessionId })))
    expect(sealed.length).toBeLessThan(JSON.stringify(ids).length + 300)
    const apart = at(now).sealBatch('b1', ids.map((sessionId) => command(sessionId)))
    expect(apart).toHaveLength(sealed.length)
  })

  it('keeps apart the askers of one batch', () => {
    const commands = ['a', 'b', 'a'].map((subject, n) => command(`s${n}`, { actor: { issuer: 'https://id.example', subject } }))
    const opened = at(now).openBatch('b1', at(now).sealBatch('b1', commands))
    expect(opened.commands.map(({ actor }) => actor.subject)).toEqual(['a', 'b', 'a'])
  })

  it.each([
    ['another job id', () => at(now).openBatch('b2', at(now).sealBatch('b1', [])), 'forged'],
    ['another secret', () => at(now).openBatch('b1', at(now, { secret: randomBytes(32), secretPrevious: null }).sealBatch('b1', [])), 'forged'],
    ['another lane', () => at(now).openBatch('b1', createSeals({ secrets, lane: 'route', now: () => now }).sealBatch('b1', [])), 'forged'],
    ['another time', () => at(now).openBatch('b1', at(now - 9).sealBatch('b1', []).replace(String(now - 9), String(now))), 'forged'],
    ['another body', () => at(now).openBatch('b1', at(now).sealBatch('b1', [command('a')]).replace('"a"', '"b"')), 'forged'],
    ['an answer in its place', () => at(now).openBatch('b1', at(now).openBatch('b1', at(now).sealBatch('b1', [])).sealAnswers([])), 'forged'],
    ['an unknown version', () => at(now).openBatch('b1', at(now).sealBatch('b1', []).replace(/^1/, '2')), 'version'],
    ['five minutes of age', () => at(now).openBatch('b1', at(now - 300_000).sealBatch('b1', [])), 'accepted'],
    ['more than five minutes of age', () => at(now).openBatch('b1', at(now - 300_001).sealBatch('b1', [])), 'expired'],
    ['a minute into the future', () => at(now).openBatch('b1', at(now + 60_000).sealBatch('b1', [])), 'accepted'],
    ['more than a minute into the future', () => at(now).openBatch('b1', at(now + 60_001).sealBatch('b1', [])), 'early'],
  ])('with %s is judged by what it proves', (_, run, expected) => {
    expect(reasonOf(run)).toBe(expected)
  })

  it('refuses every other payload', () => {
    for (const payload of [undefined, null, 1, {}, [], '', '.', '1..', 'x'.repeat(100_000), `1.${now}.${'A'.repeat(42)}.[]`]) {
      expect(reasonOf(() => at(now).openBatch('b1', payload))).toBe('malformed')
    }
    fc.assert(fc.property(fc.string(), (text) => /malformed|version|forged/.test(reasonOf(() => at(now).openBatch('b1', text)))))
  })
})

describe('sealed answers', () => {
  it('open to the same answers, in their order', () => {
    fc.assert(
      fc.property(fc.array(anyAnswer, { maxLength: 20 }), (given) => {
        const sealed = at(now).openBatch('b1', at(now).sealBatch('b1', [])).sealAnswers(given)
        expect(at(now).openAnswers('b1', sealed, given.length)).toEqual(given)
      }),
    )
  })

  const sealAnswers = (id: string, by = at(now)) => by.openBatch(id, by.sealBatch(id, [])).sealAnswers(answers)

  it.each([
    ['another job', () => at(now).openAnswers('b2', sealAnswers('b1'), 2), 'forged'],
    ['another secret', () => at(now).openAnswers('b1', sealAnswers('b1', at(now, { secret: randomBytes(32), secretPrevious: null })), 2), 'forged'],
    ['fewer commands', () => at(now).openAnswers('b1', sealAnswers('b1'), 1), 'malformed'],
    ['a former time', () => at(now).openAnswers('b1', sealAnswers('b1', at(now - 300_001)), 2), 'expired'],
    ['its own batch', () => at(now).openAnswers('b1', at(now).sealBatch('b1', []), 0), 'forged'],
  ])('of %s are refused', (_, run, expected) => {
    expect(reasonOf(run)).toBe(expected)
  })

  it('are made with the secret of the question, so that workers can rotate first', () => {
    const former = secrets
    const both: QueueSecrets = { secret: randomBytes(32), secretPrevious: former.secret }
    const api = at(now, former)
    const worker = at(now, both)
    const sealed = worker.openBatch('b1', api.sealBatch('b1', [])).sealAnswers(answers)
    expect(api.openAnswers('b1', sealed, 2)).toEqual(answers)
    const rotated = at(now, both)
    expect(rotated.openAnswers('b2', sealAnswers('b2', rotated), 2)).toEqual(answers)
    expect(reasonOf(() => api.openBatch('b3', rotated.sealBatch('b3', [])))).toBe('forged')
  })
})
