/** How far a revocation is: a bar that is drawn again on a terminal, lines now and then elsewhere. */
import { expectedOf, grouped, standing } from './operation.ts'
import type { Operation } from './operation.ts'
import type { Terminal } from './terminal.ts'

/** Where nothing can be drawn again: often enough to see it live, seldom enough for a log. */
const LINE_EVERY_MS = 5_000
const BAR_CELLS = 24

export interface Progress {
  readonly revocation: Operation
  /** Sessions per second; null while that is not known. */
  readonly rate: number | null
  readonly secondsLeft: number | null
}

/** `9 s`, `2 min 5 s`, `1 h 4 min`. */
export const duration = (seconds: number): string => {
  const whole = Math.max(0, Math.round(seconds))
  if (whole < 60) return `${whole} s`
  if (whole < 3_600) return `${Math.floor(whole / 60)} min ${whole % 60} s`
  return `${Math.floor(whole / 3_600)} h ${Math.floor((whole % 3_600) / 60)} min`
}

/** 0 to 1. What is done is whole, also where fewer were met than expected. */
const shareOf = (revocation: Operation): number => {
  if (revocation.metadata.state === 'done') return 1
  const { number } = expectedOf(revocation)
  return number === 0 ? 0 : Math.min(1, revocation.metadata.sessions.terminated / number)
}

const pace = ({ rate, secondsLeft }: Progress): string[] => [
  ...(rate === null ? [] : [`${grouped(rate)}/s`]),
  ...(secondsLeft === null ? [] : [`${duration(secondsLeft)} left`]),
]

/** `[########----------------]  33 %  1,000 of 3,000 ended · 500/s · 4 s left · told 10 of 30`. */
export const barOf = (progress: Progress): string => {
  const { revocation } = progress
  const { state, sessions, deliveries } = revocation.metadata
  const share = shareOf(revocation)
  const full = Math.floor(share * BAR_CELLS)
  const { number, exact } = expectedOf(revocation)
  const of = revocation.done ? '' : ` of ${exact ? '' : 'at least '}${grouped(number)}`
  return [
    `[${'#'.repeat(full)}${'-'.repeat(BAR_CELLS - full)}] ${String(Math.floor(share * 100)).padStart(3)} %  ${grouped(sessions.terminated)}${of} ended`,
    ...(state === 'running' || state === 'done' ? [] : [state]),
    ...(revocation.done ? [] : pace(progress)),
    `told ${grouped(deliveries.acknowledged)} of ${grouped(deliveries.total)}`,
    ...(deliveries.failed === 0 ? [] : [`${grouped(deliveries.failed)} failed`]),
  ].join(' · ')
}

/** Shows each progress as it comes, and at the end what has become of it. */
export const createProgressBar = (terminal: Terminal, now: () => number) => {
  let saidMs = -Infinity
  let said = ''
  const sayOnce = (line: string): void => {
    if (line !== said) terminal.say(line)
    said = line
  }
  return {
    show: (progress: Progress): void => {
      if (terminal.draws) {
        terminal.draw(barOf(progress))
        return
      }
      const { revocation } = progress
      if (now() - saidMs < LINE_EVERY_MS && said.startsWith(revocation.metadata.state)) return
      sayOnce([standing(revocation), ...(revocation.done ? [] : pace(progress))].join(', '))
      saidMs = now()
    },
    end: (revocation: Operation): void => sayOnce(standing(revocation)),
  }
}
