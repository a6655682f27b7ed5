/**
 * What a session id may be on the wire: 1 to 200 code points (ZITADEL's rule counts runes), no control characters.
 * Everything else is allowed, slashes and spaces too: ids are other systems' names. Postgres text cannot hold NUL,
 * and control characters only ever come from an attack or a bug.
 */

const plainId = /^[\x20-\x7e]{1,200}$/
/** Control characters, and halves of surrogate pairs, which are no characters at all. */
const forbidden = /[\p{Cc}\p{Cs}]/u
const MAX_CODE_POINTS = 200

export const SESSION_ID_RULE = 'must have 1 to 200 characters and no control characters'

/** True for an id that may be asked for. Cheap for ASCII, right for everything. */
export const isSessionId = (id: string): boolean => {
  if (plainId.test(id)) return true
  // A code point takes at most two UTF-16 units; the bound keeps the count below cheap.
  if (id.length === 0 || id.length > 2 * MAX_CODE_POINTS) return false
  return !forbidden.test(id) && [...id].length <= MAX_CODE_POINTS
}
