/** What a guard follows: Redis or HTTP, behind one contract. */
import type { AttemptOnTheWire, EntryOnTheWire } from './wire.ts'

/** Where a source puts what it learns. */
export interface Sink {
  learn(entry: EntryOnTheWire): void
  /** Everything committed up to this moment, by `performance.now()`, has been learnt. May lie further back than before. */
  fresh(asOfMs: number): void
}

export interface Source {
  /**
   * Takes a snapshot where it needs one and follows until the connection ends or `signal` says so. Called again it goes
   * on where it was.
   *
   * @throws whatever went wrong; the caller waits a little and calls again, in either case.
   */
  follow(sink: Sink, signal: AbortSignal): Promise<void>
  /** Tells the server how often what is dead was tried, where this source can. */
  report?(attempts: readonly AttemptOnTheWire[]): Promise<void>
}
