/**
 * Jobs and results that prove where they come from. Redis is not trusted: whoever can write to it must neither cause
 * a commit without a permitted request, nor an answer without a commit (G1).
 *
 * The payload is one string, `version.time.mac.body`. The keyed hash (HMAC-SHA256) covers purpose, version, lane, job
 * id, time and body, so that nothing can be moved to another job, lane or direction. It carries no secret (G10).
 *
 * Keys are derived from QUEUE_SECRET, one for each direction; QUEUE_SECRET_PREVIOUS is accepted too, and an answer is
 * made with the secret of its question. So rotate in this order: workers first, then the API, each with the new secret
 * as QUEUE_SECRET and the former as QUEUE_SECRET_PREVIOUS; then drop the former.
 *
 * A job older than five minutes is refused: whoever asked has long been answered. One minute into the future is
 * allowed for, because API and worker have clocks of their own.
 */
import { createHmac, hkdfSync, randomUUID, timingSafeEqual } from 'node:crypto'
import type { TerminateAnswer, TerminateCommand } from '../model.ts'
import { compactAnswers, compactCommands, expandAnswers, expandCommands } from './compact.ts'
import type { LaneName } from './lanes.ts'

const VERSION = '1'
const OLDEST_MS = 5 * 60_000
const FUTURE_MS = 60_000

/** Why a job or a result was set aside: the label of `curfew_jobs_refused_total`. */
export type RefusedReason = 'malformed' | 'version' | 'forged' | 'expired' | 'early' | 'replayed'

export class JobRefused extends Error {
  readonly reason: RefusedReason

  constructor(reason: RefusedReason, options: { cause?: unknown } = {}) {
    super(`refused: ${reason}`, options)
    this.name = 'JobRefused'
    this.reason = reason
  }
}

export interface QueueSecrets {
  readonly secret: Uint8Array
  readonly secretPrevious: Uint8Array | null
}

/** A batch that authenticated, and the means to answer it. */
export interface OpenedBatch {
  readonly commands: readonly TerminateCommand[]
  sealAnswers(answers: readonly TerminateAnswer[]): string
}

export interface Seals {
  sealBatch(jobId: string, commands: readonly TerminateCommand[]): string
  /** @throws JobRefused */
  openBatch(jobId: string, payload: unknown): OpenedBatch
  /** @param count answers that there must be. @throws JobRefused */
  openAnswers(jobId: string, payload: unknown, count: number): TerminateAnswer[]
}

type Purpose = 'job' | 'answer'
type Keys = Readonly<Record<Purpose, Buffer>>

/** A job id: unguessable, and neither numeric nor with a colon, which BullMQ would refuse. */
export const newJobId = (): string => `b${randomUUID()}`

/** @param now milliseconds since 1970. */
export const createSeals = (deps: { secrets: QueueSecrets; lane?: LaneName; now?: () => number }): Seals => {
  const { secrets, lane = 'interactive', now = Date.now } = deps
  const derive = (secret: Uint8Array, purpose: Purpose) => Buffer.from(hkdfSync('sha256', secret, '', `curfew queue ${purpose}`, 32))
  const keysOf = (secret: Uint8Array): Keys => ({ job: derive(secret, 'job'), answer: derive(secret, 'answer') })
  const current = keysOf(secrets.secret)
  const accepted: readonly Keys[] = secrets.secretPrevious === null ? [current] : [current, keysOf(secrets.secretPrevious)]

  const macOf = (keys: Keys, purpose: Purpose, jobId: string, time: string, body: string): Buffer =>
    createHmac('sha256', keys[purpose]).update(`${purpose}\n${VERSION}\n${lane}\n${jobId}\n${time}\n`).update(body).digest()

  const seal = (keys: Keys, purpose: Purpose, jobId: string, body: string): string => {
    const time = String(now())
    return `${VERSION}.${time}.${macOf(keys, purpose, jobId, time, body).toString('base64url')}.${body}`
  }

  const open = (purpose: Purpose, jobId: string, payload: unknown): { body: string; keys: Keys } => {
    if (typeof payload !== 'string') throw new JobRefused('malformed')
    const [, version, time, mac, body] = /^(\d{1,4})\.(\d{1,16})\.([\w-]{43})\.(.*)$/s.exec(payload) ?? []
    if (version === undefined || time === undefined || mac === undefined || body === undefined) throw new JobRefused('malformed')
    if (version !== VERSION) throw new JobRefused('version')
    const given = Buffer.from(mac, 'base64url')
    const keys = accepted.find((candidate) => timingSafeEqual(macOf(candidate, purpose, jobId, time, body), given))
    if (keys === undefined) throw new JobRefused('forged')
    const age = now() - Number(time)
    if (age > OLDEST_MS) throw new JobRefused('expired')
    if (age < -FUTURE_MS) throw new JobRefused('early')
    return { body, keys }
  }

  return {
    sealBatch: (jobId, commands) => seal(current, 'job', jobId, compactCommands(commands)),
    openBatch: (jobId, payload) => {
      const { body, keys } = open('job', jobId, payload)
      return {
        commands: parsed(() => expandCommands(body)),
        sealAnswers: (answers) => seal(keys, 'answer', jobId, compactAnswers(answers)),
      }
    },
    openAnswers: (jobId, payload, count) => {
      const { body } = open('answer', jobId, payload)
      const answers = parsed(() => expandAnswers(body))
      if (answers.length !== count) throw new JobRefused('malformed')
      return answers
    },
  }
}

const parsed = <T>(parse: () => T): T => {
  try {
    return parse()
  } catch (error) {
    throw new JobRefused('malformed', { cause: error })
  }
}
