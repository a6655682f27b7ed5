/**
 * Signs reports in an issuer's name, with the key that signs its logout tokens: whoever can check those can check these.
 * The type of the JWS, and claims that lack what a logout token must have, keep one from being taken for the other.
 */
import type { Signer } from './signing.ts'

export type SignReport = (asked: { issuer: string; typ: string; claims: Readonly<Record<string, unknown>> }) => Promise<string>

/** An RS256 key where the issuer has one or none, because receivers ask for that unless told otherwise; else its own. */
export const createSignReport = (signer: Pick<Signer, 'list' | 'sign'>): SignReport => async (asked) => {
  const current = (await signer.list(asked.issuer)).filter(({ state }) => state === 'current').map(({ alg }) => alg)
  const alg = current.includes('RS256') ? 'RS256' : (current[0] ?? 'RS256')
  return signer.sign({ ...asked, alg })
}
