/**
 * RSA keys whose signatures prove nothing, beyond the short ones that jose refuses itself (RFC 8725 §3.5).
 *
 * An exponent of 1 makes every signature the message itself. Keys made by the Infineon library of CVE-2017-15361
 * ("ROCA") can be factored: their primes are powers of 65537 modulo a product of small primes, and so is then the
 * modulus, modulo each of them; of other keys about one in 10^8 looks like that.
 */

/** Those small primes of which 65537 generates only a part of the residues; the others tell nothing apart. */
const tellingPrimes = [11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157]

const powersOf65537 = (prime: number): ReadonlySet<number> => {
  const powers = new Set<number>()
  for (let power = 1; !powers.has(power); power = (power * (65_537 % prime)) % prime) powers.add(power)
  return powers
}
const telling = tellingPrimes.map((prime) => ({ prime: BigInt(prime), powers: powersOf65537(prime) }))

const numberOf = (text: string): bigint => BigInt(`0x0${Buffer.from(text, 'base64url').toString('hex')}`)

/** @param modulus and exponent as in a JWK's `n` and `e`, base64url. */
export const isWeakRsa = (modulus: string, exponent: string): boolean => {
  const n = numberOf(modulus)
  const e = numberOf(exponent)
  return e < 3n || e % 2n === 0n || telling.every(({ prime, powers }) => powers.has(Number(n % prime)))
}
