/**
 * One attempt: the channel makes the request (and signs it), the door sends it, the channel says what the answer means.
 * Never rejects: what went wrong is an outcome.
 */
import { performance } from 'node:perf_hooks'
import type { ChannelDelivery, ChannelReceiver, RemoteChannel } from '../channels/channel.ts'
import type { DrainedReceiver, DueDelivery } from '../store/drains.ts'
import type { Log, Metrics } from '../telemetry.ts'
import type { Door } from './http.ts'
import { outcomeOf } from './outcome.ts'
import type { Attempt, Outcome } from './outcome.ts'
import type { RetryPolicy } from './retry.ts'

export type Send = (delivery: DueDelivery, receiver: DrainedReceiver) => Promise<Outcome>

/** Makes one attempt at a receiver of the given type. Never rejects. */
export type MakeAttempt = (type: string, delivery: ChannelDelivery, receiver: ChannelReceiver) => Promise<Attempt>

interface AttemptDeps {
  /** By receiver type. */
  readonly channels: Readonly<Record<string, RemoteChannel>>
  readonly door: Pick<Door, 'send'>
  readonly log: Log
}

export const createMakeAttempt = ({ channels, door, log }: AttemptDeps): MakeAttempt =>
  async (type, delivery, receiver) => {
    const channel = channels[type]
    if (channel === undefined) return { notComposed: 'No channel for this type of receiver' }
    let request
    try {
      request = await channel.compose(delivery, receiver)
    } catch (err) {
      // Nothing was sent. It is tried again like any failure, and the receiver's row says so.
      log.warn({ event: 'delivery.not_composed', receiver: receiver.id, delivery: delivery.id, err }, 'A delivery could not be composed')
      return { notComposed: 'The request could not be composed; see the log' }
    }
    const answer = await door.send(request)
    return { answer, verdict: channel.judge(answer) }
  }

/** What a drain sends with: each attempt is counted, timed and read into what is to be recorded. */
export const createSend = (deps: AttemptDeps & { metrics: Metrics; random: () => number; retry?: RetryPolicy }): Send => {
  const { metrics, random, retry } = deps
  const makeAttempt = createMakeAttempt(deps)

  return async (delivery, receiver) => {
    const startedMs = performance.now()
    const attempt = await makeAttempt(receiver.type, delivery, receiver)
    const outcome = outcomeOf({ delivery, attempt, random, ...(retry === undefined ? {} : { policy: retry }) })
    const tookMs = performance.now() - startedMs
    metrics.curfew_deliveries_total.inc({ channel: receiver.type, outcome: outcome.word })
    metrics.curfew_delivery_seconds.observe({ channel: receiver.type }, tookMs / 1_000)
    return outcome
  }
}
