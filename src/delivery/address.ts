/**
 * Which addresses may be told. Decided three times: for a URL at registration, for every looked-up address, and for
 * the peer that was really connected.
 *
 * Public unicast addresses may be told, over https alone. Private and special ranges only where an operator's CIDR
 * (`ALLOW_PRIVATE_RECEIVERS`) holds the address; there plain http is allowed too. Link-local, metadata, unspecified,
 * multicast and broadcast addresses never, whatever the operator allows. An IPv6 address that carries an IPv4
 * address (mapped, compatible, NAT64, 6to4, Teredo, ISATAP) is as forbidden as what it carries.
 */
import { BlockList, isIP } from 'node:net'
import ipaddr from 'ipaddr.js'
import { CurfewError } from '../errors.ts'

export interface AddressPolicy {
  /** Why this address may not be told, or null where it may. @param plain true for http. */
  refusal(address: string, plain: boolean): string | null
  /** True where some network is allowed, so that plain http is possible at all. */
  readonly allowsPlain: boolean
}

/** Never told, whatever the operator allows. */
const neverTold = [
  '0.0.0.0/8', '169.254.0.0/16', '224.0.0.0/4', '255.255.255.255/32',
  // Metadata services outside of link-local: Alibaba, Oracle, AWS on IPv6.
  '100.100.100.200/32', '192.0.0.192/32', 'fd00:ec2::/32',
  '::/128', 'fe80::/10', 'ff00::/8',
]

/** Told only where an operator allows it: private, shared, documentation, benchmarking, reserved and translated ranges. */
const specialRanges = [
  '10.0.0.0/8', '100.64.0.0/10', '127.0.0.0/8', '172.16.0.0/12', '192.0.0.0/24', '192.0.2.0/24', '192.31.196.0/24',
  '192.52.193.0/24', '192.88.99.0/24', '192.168.0.0/16', '192.175.48.0/24', '198.18.0.0/15', '198.51.100.0/24',
  '203.0.113.0/24', '240.0.0.0/4',
  '2001::/23', '2001:db8::/32', '2002::/16', '2620:4f:8000::/48', '3fff::/20',
]

/** The only IPv6 unicast space in public use; all else (fc00::/7, fec0::/10, 64:ff9b::/96, 100::/64, 5f00::/16 …) is special. */
const publicIpv6 = '2000::/3'

const tableOf = (cidrs: readonly string[]): BlockList => {
  const table = new BlockList()
  for (const cidr of cidrs) {
    const [address, prefix] = ipaddr.parseCIDR(cidr)
    table.addSubnet(address.toString(), prefix, address.kind())
  }
  return table
}

const never = tableOf(neverTold)
const special = tableOf(specialRanges)
const publicV6 = tableOf([publicIpv6])

/** @throws Error where an entry of `allowed` is not a CIDR. */
export const createAddressPolicy = (allowed: readonly string[]): AddressPolicy => {
  const permitted = tableOf(allowed)
  return {
    allowsPlain: allowed.length > 0,
    refusal: (text, plain) => {
      const address = parse(text)
      if (address === null) return 'not an address'
      const faces = [address, ...carriedBy(address)]
      if (faces.some((face) => holds(never, face))) return 'an address that is never told'
      if (holds(permitted, address)) return null
      if (faces.some((face) => holds(special, face))) return 'a private or special address'
      if (address.kind() === 'ipv6' && !holds(publicV6, address)) return 'a private or special address'
      return plain ? 'plain http outside of ALLOW_PRIVATE_RECEIVERS' : null
    },
  }
}

const policies = new WeakMap<readonly string[], AddressPolicy>()

/** Names that mean this machine or a metadata service whatever a resolver says. */
const localName = /^(?:.*\.)?localhost$/
const metadataName = /^(?:metadata|metadata\.google\.internal|instance-data(?:\..*)?)$/

/**
 * Checks a receiver's URL at registration: what can be said without looking anything up. Every attempt is checked again.
 *
 * @param allowPrivate the CIDRs of `ALLOW_PRIVATE_RECEIVERS`.
 * @throws CurfewError invalid_argument with a sentence that says what is wrong.
 */
export const checkReceiverUrl = (url: string, allowPrivate: readonly string[]): void => {
  let policy = policies.get(allowPrivate)
  if (policy === undefined) policies.set(allowPrivate, (policy = createAddressPolicy(allowPrivate)))
  const why = urlRefusal(url, policy)
  if (why !== null) throw new CurfewError('invalid_argument', { says: `Invalid url: ${why}` })
}

/** Long enough for any real endpoint, short enough to keep and to show. */
const MAX_URL_LENGTH = 2_000

const urlRefusal = (text: string, policy: AddressPolicy): string | null => {
  if (text.length > MAX_URL_LENGTH) return `more than ${MAX_URL_LENGTH} characters`
  if (!URL.canParse(text)) return 'not an absolute URL'
  const url = new URL(text)
  if (url.protocol !== 'https:' && url.protocol !== 'http:') return 'only https, and http where ALLOW_PRIVATE_RECEIVERS permits it'
  if (url.username !== '' || url.password !== '') return 'it carries credentials'
  if (url.hash !== '' || text.includes('#')) return 'it carries a fragment'
  if (url.port === '0') return 'port 0'
  return hostRefusal(url, policy)
}

const hostRefusal = ({ hostname, protocol }: URL, policy: AddressPolicy): string | null => {
  const plain = protocol === 'http:'
  const host = hostname.replace(/^\[|\]$/g, '').replace(/\.$/, '')
  if (isIP(host) !== 0) return policy.refusal(host, plain)
  if (host === '') return 'no host'
  if (metadataName.test(host)) return 'an address that is never told'
  if (localName.test(host)) return policy.refusal('127.0.0.1', plain) ?? null
  return plain && !policy.allowsPlain ? 'plain http outside of ALLOW_PRIVATE_RECEIVERS' : null
}

type Address = ipaddr.IPv4 | ipaddr.IPv6

const holds = (table: BlockList, address: Address): boolean => table.check(address.toString(), address.kind())

/** The address in its plainest form: without a zone, and an IPv4 address mapped into IPv6 as the IPv4 address it is. */
const parse = (text: string): Address | null => {
  const bare = text.replace(/%.*$/, '')
  if (isIP(bare) === 0) return null
  const address = ipaddr.parse(bare)
  return address instanceof ipaddr.IPv6 && address.isIPv4MappedAddress() ? address.toIPv4Address() : address
}

/** The IPv4 addresses that an IPv6 address carries in one of the known ways of carrying one. */
const carriedBy = (address: Address): ipaddr.IPv4[] => {
  if (!(address instanceof ipaddr.IPv6)) return []
  const parts = address.parts
  const at = (index: number, flip = 0): ipaddr.IPv4 => {
    const [high = 0, low = 0] = parts.slice(index, index + 2).map((part) => part ^ flip)
    return new ipaddr.IPv4([high >> 8, high & 0xff, low >> 8, low & 0xff])
  }
  const [first, second, third] = parts
  if (first === 0x2002) return [at(1)]
  if (first === 0x2001 && second === 0) return [at(2), at(6, 0xffff)]
  if (first === 0x64 && second === 0xff9b && (third === 0 || third === 1)) return [at(6)]
  if (parts.slice(0, 6).every((part) => part === 0) && (parts[6] ?? 0) !== 0) return [at(6)]
  // SIIT (::ffff:0:a.b.c.d) and ISATAP (…:0:5efe:a.b.c.d, also with the universal bit).
  if (parts.slice(0, 4).every((part) => part === 0) && parts[4] === 0xffff && parts[5] === 0) return [at(6)]
  if ((parts[4] === 0 || parts[4] === 0x200) && parts[5] === 0x5efe) return [at(6)]
  return []
}
