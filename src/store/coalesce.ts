/**
 * Turns many concurrent asks into few queries.
 *
 * An ask joins only a query that is not yet sent, so no answer is older than its ask. Nothing waits while the
 * line is idle, beyond the rest of the event loop's turn in which it came. If a query fails, its asks fail with
 * its error and the next query is sent all the same.
 */
import { CurfewError } from '../errors.ts'
import { createGather } from './gather.ts'

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

  const answerAll = async (batch: readonly Waiter<Ask, Answer>[]): Promise<void> => {
    try {
      const answers = await run(batch.map(({ ask }) => ask))
      if (answers.length !== batch.length) throw new Error(`Asked ${batch.length}, answered ${answers.length}`)
      for (const [index, answer] of answers.entries()) batch[index]?.resolve(answer)
    } catch (error) {
      for (const waiter of batch) waiter.reject(error)
    }
  }
  // Whoever asked waits for the answer until it comes, so each matters to the end.
  const asks = createGather<Waiter<Ask, Answer>>({ atMost: maxBatch, inFlight: maxInFlight, run: answerAll, matters: () => true })

  return (ask) => {
    if (asks.size() >= maxWaiting) return Promise.reject(new CurfewError('overloaded'))
    return new Promise((resolve, reject) => asks.push({ ask, resolve, reject }))
  }
}
