/**
 * The state machine of a revocation: what may be steered, and when.
 *
 * Its two parts are steered apart: `terminations`, the ending of sessions, and `notifications`, the telling of
 * receivers. Each runs, is paused, or is cancelled for good; terminations end in `done`. Steering is repeat-safe: what
 * is so already stays so.
 */
import { CurfewError } from '../errors.ts'
import type { Containment, NotificationState, RevocationState } from '../model.ts'

export const revocationParts = ['terminations', 'notifications'] as const
export type RevocationPart = (typeof revocationParts)[number]

export const steeringVerbs = ['pause', 'resume', 'cancel'] as const
export type SteeringVerb = (typeof steeringVerbs)[number]

export interface Steerable {
  readonly state: RevocationState
  readonly notifications: NotificationState
  readonly containment: Containment
}

export interface Steered {
  readonly state: RevocationState
  readonly notifications: NotificationState
  /** What has changed by it, as events of the revocation; empty: nothing. */
  readonly events: readonly string[]
}

const reached = { pause: 'paused', resume: 'running', cancel: 'cancelled' } as const satisfies Record<SteeringVerb, NotificationState>
const past = { pause: 'paused', resume: 'resumed', cancel: 'cancelled' } as const satisfies Record<SteeringVerb, string>

const refuse = (says: string): never => {
  throw new CurfewError('revocation_not_steerable', { says })
}

const ONLY_NOTIFICATIONS = 'its notifications can be: {"only":"notifications"}'

const steerTerminations = (verb: SteeringVerb, { state, containment }: Steerable): RevocationState => {
  if (verb !== 'resume' && containment === 'rules') refuse(`Cutoff rules are in force, so terminations cannot be ${past[verb]}; ${ONLY_NOTIFICATIONS}`)
  if (state === 'done') return verb === 'resume' ? state : refuse(`Terminations are done and cannot be ${past[verb]}; ${ONLY_NOTIFICATIONS}`)
  if (state === 'cancelled' && verb !== 'cancel') refuse(`Terminations are cancelled and cannot be ${past[verb]}`)
  return reached[verb]
}

const steerNotifications = (verb: SteeringVerb, { notifications }: Steerable): NotificationState => {
  if (notifications === 'cancelled' && verb !== 'cancel') refuse(`Notifications are cancelled and cannot be ${past[verb]}`)
  return reached[verb]
}

/**
 * What a revocation becomes.
 *
 * @param only null: both parts. To resume both is to resume whichever is paused.
 * @throws CurfewError revocation_not_steerable, with a sentence that says why and what can be done.
 */
export const steer = (before: Steerable, verb: SteeringVerb, only: RevocationPart | null): Steered => {
  const over = { terminations: before.state === 'cancelled', notifications: before.notifications === 'cancelled' }
  // What is cancelled does not keep the other part from being resumed.
  const isSteered = (part: RevocationPart, other: RevocationPart): boolean =>
    only === null ? !(verb === 'resume' && over[part] && !over[other]) : only === part
  const state = isSteered('terminations', 'notifications') ? steerTerminations(verb, before) : before.state
  const notifications = isSteered('notifications', 'terminations') ? steerNotifications(verb, before) : before.notifications
  return {
    state,
    notifications,
    events: [
      ...(state === before.state ? [] : [`terminations.${past[verb]}`]),
      ...(notifications === before.notifications ? [] : [`notifications.${past[verb]}`]),
    ],
  }
}
