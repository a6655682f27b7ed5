import { randomInt } from 'node:crypto'
import { createServer } from 'node:net'

export { freePort } from '../../src/dev/free-port.ts'

/**
 * The first of some loopback ports in a row that were free a moment ago. Taken from below the range that systems hand
 * out for outgoing connections, which would often have one of the neighbours.
 */
export const freePortsInARow = async (count: number): Promise<number> => {
  for (;;) {
    const first = randomInt(12_000, 30_000)
    const free = await Promise.all(Array.from({ length: count }, (_, index) => isFree(first + index)))
    if (free.every(Boolean)) return first
  }
}

const isFree = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const probe = createServer()
    probe.once('error', () => resolve(false))
    probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)))
  })
