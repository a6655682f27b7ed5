import { expect, it } from 'vitest'
import { prefersAsync, waitPreference } from '../../src/api/prefer.ts'

it.each([
  ['wait=5', 5],
  ['wait=0', 0],
  ['wait=31', 30],
  ['wait=999999999', 30],
  ['WAIT = "7"', 7],
  ['respond-async, wait=3; foo=bar', 3],
  ['foo="wait=9", wait=3', 3],
  ['wait=4, wait=8', 4],
  ['wait', null],
  ['wait=', null],
  ['wait=-1', null],
  ['wait=1.5', null],
  ['wait=1e1', null],
  ['wait=soon', null],
  ['awaiting=5', null],
  ['respond-async', null],
  ['', null],
])('reads "%s" as %s', (header, seconds) => {
  expect(waitPreference(header)).toBe(seconds)
})

it.each([
  ['respond-async', true],
  ['wait=3, Respond-Async', true],
  ['respond-async; foo=bar', true],
  ['respond-async=""', true],
  ['respond-async=no', false],
  ['foo="respond-async"', false],
  ['xrespond-async', false],
  ['wait=3', false],
  ['', false],
])('finds in "%s" that not waiting is preferred: %s', (header, isPreferred) => {
  expect(prefersAsync(header)).toBe(isPreferred)
})

it('reads a header that came in several lines, and none', () => {
  expect(waitPreference(['respond-async', 'wait=2'])).toBe(2)
  expect(waitPreference(undefined)).toBeNull()
})
