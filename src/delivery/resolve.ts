/**
 * Names to addresses, without the thread pool.
 *
 * `dns.lookup` runs on libuv's few threads, of which it may hold only two: two names whose resolver hangs would stop
 * every other look-up of the process. So names are asked over sockets of our own (c-ares), as many at once as there
 * are attempts. Only a name that DNS says it does not know goes to `dns.lookup` (for `/etc/hosts` and search
 * domains), one at a time and few waiting; one more is answered as unknown, and tried again with its delivery.
 */
import { lookup as systemLookup } from 'node:dns/promises'
import { Resolver } from 'node:dns/promises'

export interface ResolvedAddress {
  readonly address: string
  readonly family: 4 | 6
}

export type Resolve = (name: string) => Promise<readonly ResolvedAddress[]>

/** A query's first wait; c-ares asks each server twice, within the door's connect time of 2 s. */
const QUERY_TIMEOUT_MS = 700
const QUERY_TRIES = 2
/** Names that wait for the system's look-up at most: a hosts file answers at once, so more means it hangs. */
const MAX_SYSTEM_WAITING = 8

/** The name has no address, or none could be learnt in time. `code` is the resolver's, e.g. ENOTFOUND, ETIMEOUT. */
export class NameError extends Error {
  override readonly name = 'NameError'
  readonly code: string

  constructor(code: string, options?: ErrorOptions) {
    super(`The name was not resolved (${code})`, options)
    this.code = code
  }
}

/** What DNS answers for a name that it does not know, or where it is not there at all: only then hosts files are asked. */
const unknownToDns = new Set(['ENOTFOUND', 'ENODATA', 'ECONNREFUSED', 'EBADNAME', 'EFORMERR'])

const codeOf = (error: unknown): string => (error as { code?: unknown }).code?.toString() ?? 'UNKNOWN'

/** @param servers name servers to ask instead of the system's. @param system the system's own look-up. */
export const createResolve = (deps: { servers?: readonly string[]; system?: Resolve } = {}): Resolve => {
  const resolver = new Resolver({ timeout: QUERY_TIMEOUT_MS, tries: QUERY_TRIES })
  if (deps.servers !== undefined) resolver.setServers([...deps.servers])
  const askSystem = oneAtATime(deps.system ?? (async (name) => (await systemLookup(name, { all: true })) as ResolvedAddress[]))

  return async (name) => {
    const [v4, v6] = await Promise.allSettled([resolver.resolve4(name), resolver.resolve6(name)])
    const found: ResolvedAddress[] = [
      ...(v4.status === 'fulfilled' ? v4.value.map((address) => ({ address, family: 4 as const })) : []),
      ...(v6.status === 'fulfilled' ? v6.value.map((address) => ({ address, family: 6 as const })) : []),
    ]
    if (found.length > 0) return found
    const failed = [v4, v6].flatMap((result) => (result.status === 'rejected' ? [codeOf(result.reason)] : []))
    const hard = failed.find((code) => !unknownToDns.has(code))
    if (hard !== undefined) throw new NameError(hard)
    return askSystem(name)
  }
}

/** Lets one call through at a time, with a bounded line behind it. */
const oneAtATime = (ask: Resolve): Resolve => {
  let last: Promise<unknown> = Promise.resolve()
  let waiting = 0
  return (name) => {
    if (waiting >= MAX_SYSTEM_WAITING) return Promise.reject(new NameError('ENOTFOUND'))
    waiting += 1
    const asked = last.then(() => ask(name)).finally(() => { waiting -= 1 })
    last = asked.then(() => {}, () => {})
    return asked.catch((cause: unknown) => { throw new NameError(codeOf(cause), { cause }) })
  }
}
