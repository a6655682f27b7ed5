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
export const within = async <T>(promise: Promise<T>, ms: number, what: string): Promise<T> => {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new TooLateError(what)), ms)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}
