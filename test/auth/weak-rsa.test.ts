import { generateKeyPairSync } from 'node:crypto'
import { expect, it } from 'vitest'
import { isWeakRsa } from '../../src/auth/weak-rsa.ts'

const encode = (number: bigint): string => {
  const hex = number.toString(16)
  return Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, 'hex').toString('base64url')
}

it('passes ordinary keys', () => {
  for (let n = 0; n < 5; n += 1) {
    const jwk = generateKeyPairSync('rsa', { modulusLength: 2_048 }).publicKey.export({ format: 'jwk' })
    expect(isWeakRsa(String(jwk.n), String(jwk.e))).toBe(false)
  }
})

it('recognizes an exponent that signs nothing, and moduli in the pattern of CVE-2017-15361', () => {
  const { n } = generateKeyPairSync('rsa', { modulusLength: 2_048 }).publicKey.export({ format: 'jwk' })
  for (const exponent of ['', 'AA', 'AQ', 'Ag', 'BA']) expect(isWeakRsa(String(n), exponent), exponent).toBe(true)
  // Any power of 65537 modulo the primes' product, plus a multiple of that product.
  const product = [11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157].reduce((all, prime) => all * BigInt(prime), 1n)
  let residue = 1n
  for (let power = 0; power < 12; power += 1) residue = (residue * 65_537n) % product
  const modulus = residue + product * (1n << 300n)
  expect(isWeakRsa(encode(modulus), 'AQAB')).toBe(true)
  expect(isWeakRsa(encode(modulus + 2n), 'AQAB')).toBe(false)
})
