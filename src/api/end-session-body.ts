/**
 * The optional body of a DELETE: `{"sessionToken": "…"}`, with any content type or none. Both spellings that
 * ZITADEL's gateway takes are read; unknown fields are ignored; null and the empty string mean "no token".
 */
import { CurfewError } from '../errors.ts'
import { readJson } from './read-json.ts'

const spellings: ReadonlySet<string> = new Set(['sessionToken', 'session_token'])

/**
 * The session token of a body, or null.
 *
 * @throws CurfewError invalid_argument: not a JSON object, the token neither string nor null, or given twice.
 */
export const readSessionToken = (bytes: Buffer): string | null => {
  const body = readJson(bytes, { once: spellings })
  if (body === undefined) return null
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw new CurfewError('invalid_argument', { says: 'Body must be a JSON object' })
  }
  const { sessionToken, session_token: snakeCase } = body as Record<string, unknown>
  const token = sessionToken ?? snakeCase ?? null
  if (token !== null && typeof token !== 'string') {
    throw new CurfewError('invalid_argument', { says: 'sessionToken must be a string or null' })
  }
  return token === '' ? null : token
}
