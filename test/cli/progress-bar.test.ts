import { describe, expect, it } from 'vitest'
import { readOperation } from '../../src/cli/operation.ts'
import { barOf, createProgressBar, duration } from '../../src/cli/progress-bar.ts'
import type { Progress } from '../../src/cli/progress-bar.ts'
import { shown } from '../../src/cli/terminal.ts'
import { createScreen } from './screen.ts'

const progress = (change: Record<string, unknown> = {}, pace: Partial<Progress> = {}): Progress => {
  const state = (change['state'] as string | undefined) ?? 'running'
  const metadata = {
    state, notifications: 'running', mode: 'revoke', reason: 'r', ticket: null, actor: { issuer: 'https://i', subject: 's' }, containment: 'rows',
    createTime: '2026-11-23T12:00:00.000Z', cutoffTime: '2026-11-23T12:00:00.000Z', committedTime: null, enforcedTime: null, acknowledgedTime: null,
    sessions: { expected: '1000000', expectedExact: true, matched: '250000', terminated: '250000' },
    deliveries: { total: '500000', acknowledged: '1000', pending: '499000', failed: '0', moot: '0' }, ...change,
  }
  const revocation = readOperation({ name: 'revocations/018f0000-0000-7000-8000-000000000000', done: state === 'done' || state === 'cancelled', metadata })
  return { revocation, rate: null, secondsLeft: null, ...pace }
}

describe('the progress bar', () => {
  it('shows how much is ended, how fast, how long it takes yet, and who was told', () => {
    expect(barOf(progress({}, { rate: 41_000, secondsLeft: 18 }))).toBe(
      '[######------------------]  25 %  250,000 of 1,000,000 ended · 41,000/s · 18 s left · told 1,000 of 500,000')
  })

  it('is full when all is ended, though fewer were met than expected, and never before', () => {
    const sessions = { expected: '1000000', expectedExact: true, matched: '999999', terminated: '999999' }
    expect(barOf(progress({ sessions }))).toContain('[#######################-]  99 %')
    expect(barOf(progress({ sessions, state: 'done' }))).toMatch(/^\[#{24}\] 100 % {2}999,999 ended · told/)
    expect(barOf(progress({ state: 'cancelled' }))).toMatch(/^\[#{6}-{18}\] {2}25 % .*cancelled/)
  })

  it('says that it does not know how many there are', () => {
    const sessions = { expected: '100', expectedExact: false, matched: '250', terminated: '250' }
    expect(barOf(progress({ sessions }))).toContain('250 of at least 250 ended')
    expect(barOf(progress({ sessions: { ...sessions, expected: '0', matched: '0', terminated: '0' } }))).toContain('  0 %')
  })

  it('is drawn over itself on a terminal, within its width', () => {
    const screen = createScreen(() => '', 40)
    const bar = createProgressBar(screen, () => 0)
    bar.show(progress())
    bar.show(progress({ state: 'paused' }))
    bar.end(progress({ state: 'done' }).revocation)
    const frames = screen.written().split('\r\u001b[2K').slice(1)
    expect(frames).toHaveLength(3)
    expect(frames[0]).toHaveLength(39)
    expect(frames[2]).toMatch(/^done, 250,000 sessions ended, .*\n$/)
  })

  it('is a line now and then elsewhere, and one at once when the state changes', () => {
    const screen = createScreen(null)
    let nowMs = 0
    const bar = createProgressBar(screen, () => nowMs)
    bar.show(progress())
    nowMs = 4_999
    bar.show(progress({ sessions: { expected: '1000000', expectedExact: true, matched: '300000', terminated: '300000' } }))
    nowMs = 5_000
    bar.show(progress({ sessions: { expected: '1000000', expectedExact: true, matched: '400000', terminated: '400000' } }, { rate: 20, secondsLeft: 100 }))
    bar.show(progress({ state: 'paused' }))
    bar.end(progress({ state: 'paused' }).revocation)
    expect(screen.written().trimEnd().split('\n')).toEqual([
      expect.stringMatching(/^running, 250,000 of 1,000,000 sessions ended, 1,000 of 500,000 /),
      expect.stringMatching(/^running, 400,000 .*, 20\/s, 1 min 40 s left$/),
      expect.stringMatching(/^paused, 250,000 /),
    ])
    expect(screen.written()).not.toContain('\u001b')
  })

  it('speaks of time as people do', () => {
    expect([0, 59.4, 60, 125, 3_599, 3_600, 86_399].map(duration)).toEqual(
      ['0 s', '59 s', '1 min 0 s', '2 min 5 s', '59 min 59 s', '1 h 0 min', '23 h 59 min'])
  })
})

it('shows nothing that a terminal would obey', () => {
  expect(shown('a\u001b[2Jb\u0007\r\n\u009b1m\u202egpj')).toBe('a?[2Jb????1m?gpj')
})
