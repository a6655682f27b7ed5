/**
 * JSON from an endpoint of an issuer, with everything bounded: no redirect is followed, at most 256 kB is read
 * (after decompression), and one time limit covers the connection, the answer and its body.
 */

/** The built-in fetch, or a test's. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>

export type FetchJson = (url: string, init?: RequestInit) => Promise<unknown>

/** A JWK Set of 20 keys with certificate chains stays below this. */
const MAX_BYTES = 262_144
/** Callers wait for it, and a token endpoint that needs longer is as good as away. */
const TIMEOUT_MS = 3_000

const readBounded = async (response: Response): Promise<string> => {
  if (response.body === null) return ''
  const chunks: Uint8Array[] = []
  let bytes = 0
  // Leaving the loop by throwing cancels the body, which closes the connection.
  for await (const chunk of response.body) {
    bytes += chunk.length
    if (bytes > MAX_BYTES) throw new Error('answered with more than 256 kB')
    chunks.push(chunk)
  }
  return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(chunks))
}

/** @throws (rejects) Error in our own words, or fetch's own. */
export const createFetchJson =
  (fetch: Fetch): FetchJson =>
  async (url, init = {}) => {
    const response = await fetch(url, { ...init, redirect: 'manual', signal: AbortSignal.timeout(TIMEOUT_MS) })
    if (response.status !== 200) {
      await response.body?.cancel()
      throw new Error(`answered ${response.status}`)
    }
    if (/^\s*text\/html/i.test(response.headers.get('content-type') ?? '')) {
      await response.body?.cancel()
      throw new Error('answered with HTML')
    }
    return JSON.parse(await readBounded(response)) as unknown
  }
