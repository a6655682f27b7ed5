import { describe, expect, it } from 'vitest'
import { CurfewError } from '../../src/errors.ts'
import type { NotificationState, RevocationState } from '../../src/model.ts'
import { steer } from '../../src/termination/revocation.ts'
import type { RevocationPart, SteeringVerb } from '../../src/termination/revocation.ts'

const steered = (state: RevocationState, notifications: NotificationState, verb: SteeringVerb, only: RevocationPart | null, containment: 'rules' | 'rows' = 'rows') => {
  try {
    const { events, ...after } = steer({ state, notifications, containment }, verb, only)
    return `${after.state} ${after.notifications} ${events.join(' ')}`.trim()
  } catch (error) {
    if (error instanceof CurfewError && error.status === 400 && error.body().code === 9) return error.says
    throw error
  }
}

describe('steering', () => {
  it.each([
    ['running running', 'pause', null, 'paused paused terminations.paused notifications.paused'],
    ['running running', 'pause', 'notifications', 'running paused notifications.paused'],
    ['running running', 'pause', 'terminations', 'paused running terminations.paused'],
    ['paused paused', 'resume', null, 'running running terminations.resumed notifications.resumed'],
    ['paused paused', 'resume', 'terminations', 'running paused terminations.resumed'],
    ['paused running', 'cancel', null, 'cancelled cancelled terminations.cancelled notifications.cancelled'],
    ['done running', 'pause', 'notifications', 'done paused notifications.paused'],
    ['done paused', 'resume', null, 'done running notifications.resumed'],
    ['done paused', 'cancel', 'notifications', 'done cancelled notifications.cancelled'],
    ['cancelled paused', 'resume', null, 'cancelled running notifications.resumed'],
    ['paused cancelled', 'resume', null, 'running cancelled terminations.resumed'],
    ['cancelled running', 'cancel', null, 'cancelled cancelled notifications.cancelled'],
  ] as const)('of what is %s: %s %s', (before, verb, only, after) => {
    const [state, notifications] = before.split(' ') as [RevocationState, NotificationState]
    expect(steered(state, notifications, verb, only)).toBe(after)
  })

  it.each([
    ['running running', 'resume', null],
    ['paused paused', 'pause', null],
    ['cancelled cancelled', 'cancel', null],
    ['done running', 'resume', null],
    ['done cancelled', 'cancel', 'notifications'],
  ] as const)('of what is %s: %s %s changes nothing, however often', (before, verb, only) => {
    const [state, notifications] = before.split(' ') as [RevocationState, NotificationState]
    expect(steered(state, notifications, verb, only)).toBe(before)
  })

  it.each([
    ['done running', 'pause', null, /done.*only.*notifications/],
    ['done running', 'cancel', 'terminations', /done.*only.*notifications/],
    ['cancelled running', 'pause', null, /cancelled/],
    ['cancelled paused', 'resume', 'terminations', /cancelled/],
    ['running cancelled', 'pause', 'notifications', /cancelled/],
    ['running cancelled', 'resume', 'notifications', /cancelled/],
    ['cancelled cancelled', 'resume', null, /cancelled/],
  ] as const)('of what is %s: %s %s is refused with a sentence', (before, verb, only, sentence) => {
    const [state, notifications] = before.split(' ') as [RevocationState, NotificationState]
    expect(steered(state, notifications, verb, only)).toMatch(sentence)
  })

  it('under rules stops notifications alone', () => {
    for (const state of ['running', 'done'] as const) {
      for (const verb of ['pause', 'cancel'] as const) {
        expect(steered(state, 'running', verb, null, 'rules')).toMatch(/rules are in force.*only.*notifications/)
        expect(steered(state, 'running', verb, 'terminations', 'rules')).toMatch(/rules are in force/)
        expect(steered(state, 'running', verb, 'notifications', 'rules')).toMatch(new RegExp(`^${state} (paused|cancelled)`))
      }
    }
  })
})
