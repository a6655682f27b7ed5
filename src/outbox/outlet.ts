/**
 * One local channel as log-outs meet it: how long they wait for it, and what is known of whether it is there. Each
 * channel has its own, so that one that is away keeps nobody from the other.
 *
 * While a channel does not confirm, nobody waits for it and log-outs make one attempt at a time; the first that succeeds
 * ends that. What was not attempted, or failed, is upkeep's.
 */
import type { Log } from '../telemetry.ts'

/** How long a caller's answer may wait: a Redis round trip many times over, and less than a person notices. */
const BOUND_MS = 100
/** Whoever can wait leaves a channel that failed alone for so long: sessions end all the same. */
const PATIENT_AFTER_MS = 2_000

export interface Telling {
  /** Whether the channel confirmed. */
  readonly confirmed: Promise<boolean>
  /** When a caller need not wait any longer: confirmed, failed, late, or away. */
  readonly waited: Promise<void>
}

export interface Outlet {
  /** Tells it for a caller who waits for an answer. Nothing here rejects. */
  tell(work: () => Promise<unknown>): Telling
  /** Tells it for nobody in particular, as long as it takes. False where it did not confirm. */
  tellPatiently(work: () => Promise<unknown>): Promise<boolean>
}

const NOTHING = Promise.resolve()

/** @param what names the channel in the log. */
export const createOutlet = ({ what, log }: { what: string; log: Log }): Outlet => {
  let away = false
  let attempts = 0
  let failedMs = -Infinity

  const attempt = async (work: () => Promise<unknown>): Promise<boolean> => {
    attempts += 1
    try {
      await work()
      away = false
      return true
    } catch (err) {
      if (!away) log.warn({ event: 'enforce.failed', channel: what, err }, 'a local channel cannot be told; upkeep will come back to it')
      away = true
      failedMs = performance.now()
      return false
    } finally {
      attempts -= 1
    }
  }

  /** Until it has settled, or is late: then it counts as away. */
  const bounded = async (confirmed: Promise<boolean>): Promise<void> => {
    let bound: NodeJS.Timeout | undefined
    const late = new Promise<void>((resolve) => {
      bound = setTimeout(() => {
        away = true
        failedMs = performance.now()
        resolve()
      }, BOUND_MS)
    })
    await Promise.race([confirmed, late])
    clearTimeout(bound)
  }

  return {
    tell: (work) => {
      if (away && attempts > 0) return { confirmed: Promise.resolve(false), waited: NOTHING }
      const confirmed = attempt(work)
      return { confirmed, waited: away ? NOTHING : bounded(confirmed) }
    },
    tellPatiently: async (work) => (away && performance.now() - failedMs < PATIENT_AFTER_MS ? false : attempt(work)),
  }
}
