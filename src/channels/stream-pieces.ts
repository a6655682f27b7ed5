/**
 * Long entries in pieces, so that no line and no message of the stream outgrows what a reader takes. Told in pieces is
 * as good as told at once: nothing depends on two sessions or two rules being told together.
 */
import type { EndedOnTheWire, EntryOnTheWire, RuleOnTheWire } from '../client/wire.ts'

/** Sessions of one piece: some hundred kilobytes, also where their ids are as long as they may be. */
const SESSIONS = 1_000
/** Rules of one piece, counted with the names that they exclude: the same. */
const NAMES = 2_000

const endedPieces = ({ issuer, sessionIds, expiresMs }: EndedOnTheWire): EndedOnTheWire[] =>
  Array.from({ length: Math.ceil(sessionIds.length / SESSIONS) }, (_, at) => ({
    issuer, sessionIds: sessionIds.slice(at * SESSIONS, (at + 1) * SESSIONS), expiresMs: expiresMs.slice(at * SESSIONS, (at + 1) * SESSIONS),
  }))

const weightOfRule = ({ excludeUsers, excludeSessions }: RuleOnTheWire): number => 1 + excludeUsers.length + excludeSessions.length

/** How much an entry holds: sessions, rules and the names that these exclude. */
export const weightOf = ({ ended = [], rules = [] }: EntryOnTheWire): number =>
  ended.reduce((sum, { sessionIds }) => sum + sessionIds.length, 0) + rules.reduce((sum, rule) => sum + weightOfRule(rule), 0)

/** Rules in their order, in pieces; one that is long stands alone. */
export const rulePieces = <Rule extends RuleOnTheWire>(rules: readonly Rule[]): Rule[][] => {
  const pieces: Rule[][] = []
  let room = 0
  for (const rule of rules) {
    const weight = weightOfRule(rule)
    const piece = pieces.at(-1)
    if (piece === undefined || weight > room) {
      pieces.push([rule])
      room = NAMES - weight
    } else {
      piece.push(rule)
      room -= weight
    }
  }
  return pieces
}

/** An entry in pieces, at least one. */
export const piecesOf = (entry: EntryOnTheWire): EntryOnTheWire[] => {
  const { ended = [], rules = [] } = entry
  if (weightOf(entry) <= SESSIONS && ended.length <= 1) return [entry]
  const pieces = [...rulePieces(rules).map((piece) => ({ rules: piece })), ...ended.flatMap(endedPieces).map((piece) => ({ ended: [piece] }))]
  return pieces.length === 0 ? [entry] : pieces
}
