/** The signature step: is this token signed by one of the issuer's keys, with an algorithm that we accept? */
import { compactVerify } from 'jose'
import type { Envelope } from './envelope.ts'
import type { KeyLookup } from './key-set.ts'
import { tokenRefused } from './token-refused.ts'
import { CurfewError } from '../errors.ts'

/**
 * Verifies a JWS over the envelope's own bytes (RFC 8725 §3.1, §3.2).
 *
 * @throws (rejects) CurfewError token_invalid, or issuer_unavailable where the lookup has no keys at all.
 */
export const verifySignature = async (
  envelope: Envelope,
  lookup: KeyLookup,
  algorithms: readonly string[],
): Promise<void> => {
  if (!algorithms.includes(envelope.header.alg)) throw tokenRefused('alg is not accepted')
  try {
    await compactVerify(envelope.token, lookup, { algorithms: [...algorithms] })
  } catch (error) {
    if (error instanceof CurfewError) throw error
    // jose's errors can hold the claims; only their code goes further.
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unusable key'
    throw tokenRefused(`signature: ${code}`)
  }
}
