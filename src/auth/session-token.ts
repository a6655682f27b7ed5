/**
 * Session tokens: the secret that proves possession of one session. 256 random bits, shown once, stored as
 * SHA-256, compared in constant time. A fast hash is enough, because what it hides cannot be guessed.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'

/** Compared with where there is nothing to compare with, so that an unknown session costs the same work. */
const noHash = randomBytes(32)

/** SHA-256 of a session token, 32 bytes. */
export const hashSessionToken = (token: string): Buffer => createHash('sha256').update(token, 'utf8').digest()

/** A new token and the hash to store. The token is 43 characters of base64url. */
export const newSessionToken = (): { token: string; hash: Uint8Array<ArrayBuffer> } => {
  const token = randomBytes(32).toString('base64url')
  return { token, hash: new Uint8Array(hashSessionToken(token)) }
}

/**
 * Says whether a token is the one that was hashed. A null hash (no session, or one without a token) never
 * matches and takes the same time.
 */
export const sessionTokenMatches = (token: string, hash: Uint8Array | null): boolean => {
  const comparable = hash !== null && hash.length === noHash.length
  const same = timingSafeEqual(hashSessionToken(token), comparable ? hash : noHash)
  return same && comparable
}
