/**
 * How a batch and its answers look inside a job: what repeats is written once. A batch of 500 by one asker is little
 * more than its 500 ids. Parsed strictly: what does not have the shape throws a TypeError, and nothing of it is used.
 */
import type { Actor, TerminateAnswer, TerminateCommand, TerminationMode } from '../model.ts'

/** Who asked and why: the same for most commands of a batch. */
type Asker = readonly [issuers: readonly string[], actorIssuer: string, actorSubject: string, mode: TerminationMode, reason: string | null]
/** `who` holds each command's asker by its place; null where one asked for all. */
type BatchBody = readonly [askers: readonly Asker[], ids: readonly string[], who: readonly number[] | null]

const letters = { ended: 'e', before: 'b', unknown: 'u', busy: 'y' } as const satisfies Record<TerminateAnswer['outcome'], string>
/** One letter a command; sequence, date and owner only where there are details, the latter two by their place. */
type AnswersBody = readonly [
  outcomes: string,
  sequences: readonly string[],
  dates: readonly string[],
  whichDate: readonly number[],
  owners: readonly string[],
  whichOwner: readonly number[],
]

/** Gives equal values one place. */
const createPlaces = <T>() => {
  const values: T[] = []
  const places = new Map<string, number>()
  return {
    values,
    placeOf: (key: string, value: T): number => {
      let place = places.get(key)
      if (place === undefined) {
        place = values.push(value) - 1
        places.set(key, place)
      }
      return place
    },
  }
}

export const compactCommands = (commands: readonly TerminateCommand[]): string => {
  const askers = createPlaces<Asker>()
  // Callers are remembered, so commands of one caller mostly share their objects: no key is built for those.
  const seen = new Map<Actor, { like: TerminateCommand; place: number }>()
  const ids: string[] = []
  const who: number[] = []
  for (const command of commands) {
    const { issuers, actor, mode, reason } = command
    let known = seen.get(actor)
    if (known === undefined || known.like.issuers !== issuers || known.like.mode !== mode || known.like.reason !== reason) {
      const asker: Asker = [issuers, actor.issuer, actor.subject, mode, reason]
      known = { like: command, place: askers.placeOf(JSON.stringify(asker), asker) }
      seen.set(actor, known)
    }
    ids.push(command.sessionId)
    who.push(known.place)
  }
  return JSON.stringify([askers.values, ids, askers.values.length <= 1 ? null : who] satisfies BatchBody)
}

/** @throws TypeError or SyntaxError where the text is not what `compactCommands` makes. */
export const expandCommands = (text: string): TerminateCommand[] => {
  const body: unknown = JSON.parse(text)
  if (!isTuple(body, 3)) throw new TypeError('not a batch')
  const [askers, ids, who] = body
  if (!Array.isArray(askers) || !isStrings(ids) || (who !== null && !isPlaces(who, ids.length))) throw new TypeError('not a batch')
  const makers = askers.map((asker: unknown) => {
    if (!isTuple(asker, 5)) throw new TypeError('not an asker')
    const [issuers, issuer, subject, mode, reason] = asker
    if (!isStrings(issuers) || typeof issuer !== 'string' || typeof subject !== 'string') throw new TypeError('not an asker')
    if ((mode !== 'logout' && mode !== 'revoke') || (reason !== null && typeof reason !== 'string')) throw new TypeError('not an asker')
    const actor: Actor = { issuer, subject }
    return (sessionId: string): TerminateCommand => ({ sessionId, issuers, actor, mode, reason })
  })
  return ids.map((id, at) => valueAt(makers, who === null ? 0 : valueAt(who, at))(id))
}

export const compactAnswers = (answers: readonly TerminateAnswer[]): string => {
  let outcomes = ''
  const sequences: string[] = []
  const dates = createPlaces<string>()
  const whichDate: number[] = []
  const owners = createPlaces<string>()
  const whichOwner: number[] = []
  for (const answer of answers) {
    outcomes += letters[answer.outcome]
    if (!('details' in answer)) continue
    const { sequence, changeDate, resourceOwner } = answer.details
    sequences.push(sequence)
    whichDate.push(dates.placeOf(changeDate, changeDate))
    whichOwner.push(owners.placeOf(resourceOwner, resourceOwner))
  }
  return JSON.stringify([outcomes, sequences, dates.values, whichDate, owners.values, whichOwner] satisfies AnswersBody)
}

/** @throws TypeError or SyntaxError where the text is not what `compactAnswers` makes. */
export const expandAnswers = (text: string): TerminateAnswer[] => {
  const body: unknown = JSON.parse(text)
  if (!isTuple(body, 6)) throw new TypeError('not answers')
  const [outcomes, sequences, dates, whichDate, owners, whichOwner] = body
  if (typeof outcomes !== 'string' || !isStrings(sequences) || !isStrings(dates) || !isStrings(owners)) throw new TypeError('not answers')
  if (!isPlaces(whichDate, sequences.length) || !isPlaces(whichOwner, sequences.length)) throw new TypeError('not answers')
  const answers: TerminateAnswer[] = []
  let detailed = 0
  for (const letter of outcomes) {
    if (letter === letters.unknown) answers.push({ outcome: 'unknown' })
    else if (letter === letters.busy) answers.push({ outcome: 'busy' })
    else if (letter === letters.ended || letter === letters.before) {
      const details = {
        sequence: valueAt(sequences, detailed),
        changeDate: valueAt(dates, valueAt(whichDate, detailed)),
        resourceOwner: valueAt(owners, valueAt(whichOwner, detailed)),
      }
      detailed += 1
      answers.push({ outcome: letter === letters.ended ? 'ended' : 'before', details })
    } else throw new TypeError('not an outcome')
  }
  return answers
}

const isTuple = (value: unknown, length: number): value is unknown[] => Array.isArray(value) && value.length === length
const isStrings = (value: unknown): value is string[] => Array.isArray(value) && value.every((one) => typeof one === 'string')
const isPlaces = (value: unknown, length: number): value is number[] =>
  isTuple(value, length) && value.every((one) => typeof one === 'number')

const valueAt = <T>(values: readonly T[], place: number): T => {
  const value = values[place]
  if (value === undefined) throw new TypeError('a place that is not there')
  return value
}
