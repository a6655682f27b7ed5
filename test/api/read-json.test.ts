import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { readSessionToken } from '../../src/api/end-session-body.ts'
import { readJson } from '../../src/api/read-json.ts'
import { CurfewError } from '../../src/errors.ts'

const read = (text: string) => readJson(Buffer.from(text))

describe('readJson', () => {
  it('reads whatever JSON.stringify writes, unless it names a field that is not allowed', () => {
    fc.assert(fc.property(fc.jsonValue({ maxDepth: 6 }), (value) => {
      const text = JSON.stringify(value)
      fc.pre(!text.includes('__proto__'))
      expect(read(text)).toEqual(JSON.parse(text))
    }))
  })

  it('reads anything at all or refuses it as a bad argument', () => {
    const outcome = (text: string) => {
      try {
        return read(text) === undefined || true
      } catch (error) {
        return error instanceof CurfewError && error.kind === 'invalid_argument'
      }
    }
    const jsonish = fc.array(fc.constantFrom('{', '}', '[', ']', '"', '\\', ':', ',', 'a', '1', ' ', '\\u0061', 'null'), { maxLength: 40 }).map((parts) => parts.join(''))
    fc.assert(fc.property(fc.oneof(fc.string({ unit: 'binary' }), jsonish), (text) => {
      expect(outcome(text)).toBe(true)
    }), { numRuns: 2_000 })
  })

  it('takes an empty body for none', () => expect(read('')).toBeUndefined())

  it.each([
    ['invalid UTF-8', Buffer.from([0x22, 0xff, 0x22])],
    ['a byte order mark', Buffer.from('\ufeff{}')],
    ['20,000 open brackets', Buffer.from('['.repeat(20_000))],
    ['20,000 nested objects', Buffer.from(`${'{"a":'.repeat(20_000)}1${'}'.repeat(20_000)}`)],
    ['__proto__', Buffer.from('{"a":{"__proto__":{"admin":true}}}')],
    ['an escaped __proto__', Buffer.from('{"\\u005f_proto__":1}')],
    ['a name twice', Buffer.from('{"a":1,"b":{"a":1},"a":2}')],
    ['a name twice, once escaped, deep down', Buffer.from('[{"x":{"user":1,"us\\u0065r":2}}]')],
    ['text after the value', Buffer.from('{} x')],
  ])('refuses %s', (_, bytes) => {
    expect(() => readJson(bytes)).toThrowError(expect.objectContaining({ kind: 'invalid_argument' }))
  })

  it('does not take a value, or a name of another object, for a name given twice', () => {
    expect(read('{"a":"a","b":["a","a"],"c":{"a":1},"d":{"a":"a: \\"a\\""}}')).toBeTruthy()
  })

  it('G10: quotes nothing of the body in its refusal', () => {
    try {
      read('{"sessionToken":"s3cret" oops')
      expect.unreachable()
    } catch (error) {
      expect(String((error as CurfewError).stack) + JSON.stringify((error as CurfewError).cause)).not.toContain('s3cret')
    }
  })
})

describe('readSessionToken', () => {
  const token = (text: string) => readSessionToken(Buffer.from(text))

  it('reads both spellings, and none from null, the empty string, an empty object or nothing', () => {
    expect(['{"sessionToken":"a"}', '{"session_token":"a"}', '{"x":{"sessionToken":"b"},"sessionToken":"a","y":1,"y":2}'].map(token)).toEqual(['a', 'a', 'a'])
    expect(['', '{}', '{"sessionToken":null}', '{"sessionToken":""}', '{"__proto__":{"sessionToken":"a"}}', '{"sessionId":"x"}'].map(token)).toEqual([null, null, null, null, null, null])
  })

  it.each(['[]', 'null', '1', '"x"', '{"sessionToken":1}', '{"sessionToken":{}}', '{"session_token":[]}', '{', '{"sessionToken":"a",}',
    '{"sessionToken":"a","sessionToken":"b"}', '{"sessionToken":"a","session_token":"a"}', '{"sessionToken":null,"sess\\u0069onToken":"b"}',
  ])('refuses %s', (text) => {
    expect(() => token(text)).toThrowError(expect.objectContaining({ kind: 'invalid_argument' }))
  })
})
