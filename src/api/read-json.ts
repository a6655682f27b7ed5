/**
 * JSON from outside, read so that nothing later is surprised: valid UTF-8, bounded depth, no `__proto__`, and no
 * name twice in one object (of two `sessionToken`s a proxy may have judged the first, and we would use the last).
 * One linear scan over the text, before and independent of JSON.parse, which remains the judge of the syntax.
 */
import { isUtf8 } from 'node:buffer'
import { CurfewError } from '../errors.ts'

/** Our deepest body has 5 levels; 32 leaves room and stops every recursion long before the stack ends. */
const MAX_DEPTH = 32

interface JsonRules {
  /** Only these names, in the outermost object, must not come twice; by default every name in every object. */
  readonly once?: ReadonlySet<string>
}

/**
 * The value of a JSON body, or undefined for an empty one.
 *
 * @throws CurfewError invalid_argument, naming the fault and nothing of the content.
 */
export const readJson = (bytes: Buffer, rules: JsonRules = {}): unknown => {
  if (bytes.length === 0) return undefined
  if (!isUtf8(bytes)) throw refuse('Body is not valid UTF-8')
  const text = bytes.toString('utf8')
  checkNames(text, rules.once)
  try {
    return JSON.parse(text) as unknown
  } catch {
    // V8 quotes the text in its message, and the text may hold a token: the cause is not kept.
    throw refuse('Body is not valid JSON')
  }
}

const refuse = (says: string): CurfewError => new CurfewError('invalid_argument', { says })

const QUOTE = 34
const BACKSLASH = 92
const OPEN_BRACE = 123
const CLOSE_BRACE = 125
const OPEN_BRACKET = 91
const CLOSE_BRACKET = 93
const COLON = 58

/** Walks the text once. On text that is not JSON it may see anything, but ends and stays within the depth. */
const checkNames = (text: string, once: ReadonlySet<string> | undefined): void => {
  // One entry for each open bracket: the names seen in that object, made when the first one is met.
  const open: (Set<string> | null)[] = []
  let index = 0
  while (index < text.length) {
    const code = text.charCodeAt(index)
    if (code === QUOTE) {
      const end = endOfString(text, index)
      if (isFollowedByColon(text, end)) noteName(open, nameOf(text.slice(index, end)), once)
      index = end
      continue
    }
    if (code === OPEN_BRACE || code === OPEN_BRACKET) {
      if (open.length === MAX_DEPTH) throw refuse(`Body is nested deeper than ${MAX_DEPTH} levels`)
      open.push(null)
    } else if (code === CLOSE_BRACE || code === CLOSE_BRACKET) {
      open.pop()
    }
    index += 1
  }
}

/** Index after the closing quote of the string that starts here, or the end of the text. */
const endOfString = (text: string, start: number): number => {
  let index = start + 1
  while (index < text.length) {
    const code = text.charCodeAt(index)
    if (code === QUOTE) return index + 1
    index += code === BACKSLASH ? 2 : 1
  }
  return text.length
}

const isFollowedByColon = (text: string, from: number): boolean => {
  let index = from
  while (index < text.length && text.charCodeAt(index) <= 32) index += 1
  return text.charCodeAt(index) === COLON
}

/** A name may be written with escapes: `"session\u0054oken"` is the same name. */
const nameOf = (quoted: string): string => {
  if (!quoted.includes('\\')) return quoted.slice(1, -1)
  try {
    return String(JSON.parse(quoted))
  } catch {
    // Not a JSON string: JSON.parse of the whole will say so.
    return quoted
  }
}

const noteName = (open: (Set<string> | null)[], name: string, once: ReadonlySet<string> | undefined): void => {
  const depth = open.length - 1
  if (depth < 0) return
  if (once !== undefined) {
    if (depth !== 0 || !once.has(name)) return
  } else if (name === '__proto__') {
    throw refuse('Body has a field that is not allowed')
  }
  const seen = open[depth] ?? new Set()
  // Of the names in `once`, any two are too many: they are spellings of one field.
  if (seen.has(name) || (once !== undefined && seen.size > 0)) throw refuse('Body names a field twice')
  open[depth] = seen.add(name)
}
