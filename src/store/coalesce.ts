/**
 * Turns many concurrent asks into few queries.
 *
 * An ask joins only a query that is not yet sent, so no answer is older than its ask. Nothing waits while the
 * line is idle, beyond the rest of the event loop's turn in which it came. If a query fails, its asks fail with
 * its error and the next query is sent all the same.
 */
import { CurfewError } from '../errors.ts'

interface CoalesceOptions<Ask, Answer> {
  /** Answers every ask of a batch, in the same order. */
  readonly run: (asks: readonly Ask[]) => Promise<readonly Answer[]>
  /** Asks in one query at most. */
  readonly maxBatch: number
  /** Queries in flight at most. */
  readonly maxInFlight: number
  /** Asks that wait for a query at most; one more is refused as `overloaded`. */
  readonly maxWaiting: number
}

interface Waiter<Ask, Answer> {
  readonly ask: Ask
  readonly resolve: (answer: Answer) => void
  readonly reject: (error: unknown) => void
}

/**
 * @returns a function that asks one thing and resolves with its answer.
 * @throws (rejects) CurfewError overloaded, or whatever `run` rejects with.
 */
export const createCoalesce = <Ask, Answer>(options: CoalesceOptions<Ask, Answer>): ((ask: Ask) => Promise<Answer>) => {
  const { run, maxBatch, maxInFlight, maxWaiting } = options
  let waiting: Waiter<Ask, Answer>[] = []
  let inFlight = 0
  let scheduled = false

  const send = async (batch: readonly Waiter<Ask, Answer>[]): Promise<void> => {
    inFlight += 1
    try {
      const answers = await run(batch.map(({ ask }) => ask))
      if (answers.length !== batch.length) throw new Error(`Asked ${batch.length}, answered ${answers.length}`)
      for (const [index, answer] of answers.entries()) batch[index]?.resolve(answer)
    } catch (error) {
      for (const waiter of batch) waiter.reject(error)
    } finally {
      inFlight -= 1
      sendWaiting()
    }
  }

  const sendWaiting = (): void => {
    while (waiting.length > 0 && inFlight < maxInFlight) {
      const batch = waiting.slice(0, maxBatch)
      waiting = waiting.slice(maxBatch)
      void send(batch)
    }
  }

  // The end of the turn gathers every request whose bytes had already arrived.
  const schedule = (): void => {
    if (scheduled || inFlight >= maxInFlight) return
    scheduled = true
    setImmediate(() => {
      scheduled = false
      sendWaiting()
    })
  }

  return (ask) => {
    if (waiting.length >= maxWaiting) return Promise.reject(new CurfewError('overloaded'))
    return new Promise((resolve, reject) => {
      waiting.push({ ask, resolve, reject })
      schedule()
    })
  }
}
