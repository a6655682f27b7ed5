/**
 * Those who wait for an answer, in the order in which they asked.
 *
 * Each is answered once: the first answer or error counts, whichever way it was learnt, and later ones are ignored. The
 * list is linked, so that adding and leaving cost a few assignments, and the oldest are always at its head: one timer
 * finds all whose time is up.
 */
import type { TerminateAnswer, TerminateCommand } from '../model.ts'

export interface Ask {
  readonly command: TerminateCommand
  readonly sinceMs: number
  /** Nobody waits for it any more. */
  settled: boolean
  /** Times it was answered `busy`. */
  busy: number
  /** Times this process' own commit of it failed. */
  failures: number
  resolve: (answer: TerminateAnswer) => void
  reject: (error: Error) => void
  before: Ask | null
  after: Ask | null
}

export interface Waiting {
  readonly size: () => number
  /** @param nowMs of a monotonic clock, not decreasing from call to call. */
  add(command: TerminateCommand, nowMs: number): { ask: Ask; promise: Promise<TerminateAnswer> }
  answer(ask: Ask, answer: TerminateAnswer): void
  fail(ask: Ask, error: Error): void
  /** Fails all who have waited since `sinceMs` or longer. */
  failOlderThan(sinceMs: number, makeError: () => Error): void
}

const unset = () => undefined

export const createWaiting = (): Waiting => {
  let head: Ask | null = null
  let tail: Ask | null = null
  let size = 0

  const leave = (ask: Ask) => {
    ask.settled = true
    size -= 1
    if (ask.before === null) head = ask.after
    else ask.before.after = ask.after
    if (ask.after === null) tail = ask.before
    else ask.after.before = ask.before
    ask.before = null
    ask.after = null
  }

  const fail = (ask: Ask, error: Error) => {
    if (ask.settled) return
    leave(ask)
    ask.reject(error)
  }

  return {
    size: () => size,
    add: (command, nowMs) => {
      const ask: Ask = { command, sinceMs: nowMs, settled: false, busy: 0, failures: 0, resolve: unset, reject: unset, before: tail, after: null }
      const promise = new Promise<TerminateAnswer>((resolve, reject) => {
        ask.resolve = resolve
        ask.reject = reject
      })
      if (tail === null) head = ask
      else tail.after = ask
      tail = ask
      size += 1
      return { ask, promise }
    },
    answer: (ask, answer) => {
      if (ask.settled) return
      leave(ask)
      ask.resolve(answer)
    },
    fail,
    failOlderThan: (sinceMs, makeError) => {
      while (head !== null && head.sinceMs <= sinceMs) fail(head, makeError())
    },
  }
}
