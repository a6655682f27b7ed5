/**
 * How a connection to a receiver is made: the address is checked before, while and after connecting.
 *
 * A literal address never reaches a look-up, and a name can change between look-up and connect; so literals are
 * checked here, every looked-up address is checked (one bad address refuses them all), and the connected peer is
 * checked once more. Certificates are verified; names are looked up by `resolve`, never by the thread pool.
 */
import { isIP } from 'node:net'
import type { LookupFunction } from 'node:net'
import { buildConnector } from 'undici'
import type { AddressPolicy } from './address.ts'
import type { Resolve } from './resolve.ts'

/** The connection would go where it must not. */
export class AddressRefused extends Error {
  override readonly name = 'AddressRefused'
}

/** TCP and TLS together; a receiver that takes longer is not answering. */
const CONNECT_TIMEOUT_MS = 2_000

/** @param ca certificates to trust instead of the system's, for receivers under a private authority. */
export const createConnect = (deps: {
  policy: AddressPolicy
  resolve: Resolve
  ca?: string
  connectTimeoutMs?: number
}): buildConnector.connector => {
  const { policy, resolve, ca, connectTimeoutMs = CONNECT_TIMEOUT_MS } = deps
  const connectorFor = (plain: boolean): buildConnector.connector => buildConnector({
    timeout: connectTimeoutMs,
    lookup: checkedLookup(resolve, (address) => policy.refusal(address, plain)),
    rejectUnauthorized: true,
    minVersion: 'TLSv1.2',
    ...(ca === undefined ? {} : { ca }),
  })
  const plainConnect = connectorFor(true)
  const tlsConnect = connectorFor(false)

  return (options, callback) => {
    const plain = options.protocol !== 'https:'
    const host = options.hostname.replace(/^\[|\]$/g, '')
    const why = isIP(host) === 0 ? null : policy.refusal(host, plain)
    if (why !== null) {
      callback(new AddressRefused(why), null)
      return
    }
    const connect = plain ? plainConnect : tlsConnect
    connect(options, (...result) => {
      const [error, socket] = result
      if (error !== null) {
        callback(error, null)
        return
      }
      const peerWhy = policy.refusal(socket.remoteAddress ?? '', plain)
      if (peerWhy === null) {
        callback(null, socket)
        return
      }
      socket.on('error', () => {})
      socket.destroy()
      callback(new AddressRefused(peerWhy), null)
    })
  }
}

/** A `lookup` for sockets that answers only where every address of the name may be told. */
const checkedLookup = (resolve: Resolve, refusal: (address: string) => string | null): LookupFunction =>
  (name, options, callback) => {
    resolve(name).then(
      (addresses) => {
        const why = addresses.map(({ address }) => refusal(address)).find((reason) => reason !== null)
        const [first] = addresses
        if (why !== undefined) callback(new AddressRefused(why), '')
        else if (first === undefined) callback(new AddressRefused('the name has no address'), '')
        else if (options.all === true) callback(null, [...addresses])
        else callback(null, first.address, first.family)
      },
      (error: NodeJS.ErrnoException) => callback(error, ''),
    )
  }
