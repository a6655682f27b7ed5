/**
 * Wakes the router of this process: no hop through the queue where the commit was made by a worker itself.
 *
 * One run at a time; what is committed while it runs is routed by the next. A pause between runs lets commits of a
 * busy moment share one statement. A run that fails is upkeep's to repeat.
 */
import type { Log } from '../telemetry.ts'

export interface RouteSoon {
  /** Routes what is committed by now, soon. Never throws. */
  wake(): void
  /** Waits for the run under way; wakes nothing any more. */
  stop(): Promise<void>
}

/** Under load one claim then takes what several batches committed; alone, a receiver is told this much later at most. */
const PAUSE_MS = 10

export const createRouteSoon = ({ route, log }: { route: () => Promise<void>; log: Log }): RouteSoon => {
  let running: Promise<void> | null = null
  let again = false
  let stopped = false

  const run = async () => {
    do {
      again = false
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS))
      await route().catch((error: unknown) => log.warn({ event: 'route.failed', err: error }, 'routing failed; upkeep repeats it'))
    } while (again && !stopped)
    running = null
  }

  return {
    wake: () => {
      again = true
      if (!stopped) running ??= run()
    },
    stop: async () => {
      stopped = true
      await running
    },
  }
}
