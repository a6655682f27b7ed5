/** A promise of a driver that may never settle (ioredis 6.0.0 can leave one pending) did not do so in time. */
export class TooLateError extends Error {
  constructor(what: string) {
    super(`${what} took too long; its outcome is unknown`)
    this.name = 'TooLateError'
  }
}

/**
 * Settles as `promise` does, or rejects after `ms`. The promise itself goes on, and what becomes of it later is
 * nobody's business any more.
 *
 * @throws TooLateError
 */
export const within = <T>(promise: Promise<T>, ms: number, what: string): Promise<T> =>
  new Promise<T>((resolve, reject) => {
    const timer = setTimeout(() => reject(new TooLateError(what)), ms)
    promise.then(
      (value) => { clearTimeout(timer); resolve(value) },
      (error: unknown) => { clearTimeout(timer); reject(error) },
    )
  })
