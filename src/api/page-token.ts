/**
 * Page tokens: where the next page begins, opaque to the caller. They carry no authority, every page is read within
 * the caller's own reach, so they are neither signed nor secret; a made-up one is judged like any other input.
 */
import { CurfewError } from '../errors.ts'

export const pageTokenOf = (key: string): string => Buffer.from(key, 'utf8').toString('base64url')

/**
 * The key that a token stands for, or null without one.
 *
 * @throws CurfewError invalid_argument where it is not a token of this list.
 */
export const readPageToken = (token: string | undefined, isKey: (key: string) => boolean): string | null => {
  if (token === undefined || token === '') return null
  const key = Buffer.from(token, 'base64url').toString('utf8')
  if (!isKey(key)) throw new CurfewError('invalid_argument', { says: 'pageToken is not a token of this list' })
  return key
}
