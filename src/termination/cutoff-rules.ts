/**
 * Setting cutoff rules: the one way, for a command, and for a revocation in the transaction that accepts it.
 *
 * A rule is in force from its commit on: registering, reading, searching and our own bearer check ask the rules each
 * time. Rows of sessions that it kills stay `active` until they are ended.
 */
import { CurfewError } from '../errors.ts'
import type { Actor } from '../model.ts'
import { insertRule, insertRules } from '../store/cutoff-rules.ts'
import type { CutoffRule, RuleTransaction } from '../store/cutoff-rules.ts'
import { uuidV7 } from './uuid-v7.ts'

/** Whom a rule kills. Null is not named. */
export interface RuleTarget {
  readonly issuer: string
  readonly organization: string | null
  readonly user: string | null
}

/** What rules have that are set together. */
export interface RuleTerms {
  /** RFC 3339. Null: now. */
  readonly bornBefore: string | null
  readonly excludeUsers: readonly string[]
  readonly excludeSessions: readonly string[]
  readonly reason: string
  readonly actor: Actor
  readonly revocationId: string | null
}

/** What is asked for. Empty is nobody and nothing. */
export interface RuleAsked extends RuleTarget, RuleTerms {}

/** Every check of a session walks them, and so does every guard. */
export const MAX_EXCLUDED = 1_000
/** Longer than any name that sessions are registered with. */
const MAX_CHARACTERS = 512

/** Postgres text holds no NUL and no halves of surrogate pairs; other control characters are in nobody's name. */
const isName = (text: string): boolean => text !== '' && text.length <= MAX_CHARACTERS && !/[\p{Cc}\p{Cs}]/u.test(text)

/** RFC 3339 §5.6, with any number of fractional digits. */
const isTime = (text: string): boolean =>
  /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/i.test(text) && !Number.isNaN(Date.parse(text))

const refuse = (says: string): never => {
  throw new CurfewError('invalid_argument', { says })
}

const checkName = (field: string, text: string | null): void => {
  if (text !== null && !isName(text)) refuse(`${field} must have 1 to ${MAX_CHARACTERS} characters and no control characters`)
}

const check = (targets: readonly RuleTarget[], asked: RuleTerms): void => {
  for (const field of ['issuer', 'organization', 'user'] as const) for (const target of targets) checkName(field, target[field])
  checkName('reason', asked.reason)
  for (const field of ['excludeUsers', 'excludeSessions'] as const) {
    if (asked[field].length > MAX_EXCLUDED) refuse(`${field} must name at most ${MAX_EXCLUDED}`)
    if (!asked[field].every(isName)) refuse(`${field} must name ids of 1 to ${MAX_CHARACTERS} characters and no control characters`)
  }
  if (asked.bornBefore !== null && !isTime(asked.bornBefore)) refuse('bornBefore must be an RFC 3339 time')
}

interface Lifetimes {
  readonly maxLifetimeSeconds: number
  readonly maxTokenLifetimeSeconds: number
}

const lifetimeOf = ({ maxLifetimeSeconds, maxTokenLifetimeSeconds }: Lifetimes) => ({ lifetimeSeconds: maxLifetimeSeconds + maxTokenLifetimeSeconds })

const inUtc = (time: string | null): string | null => (time === null ? null : new Date(time).toISOString())

const newId = (): string => uuidV7(Date.now())

/**
 * Makes the setting of rules. `setRule` is part of the transaction it is given; best its last statement, because
 * others who set rules wait for its end. A rule set twice is two rules, which kill what one kills.
 *
 * `cutoff` is now or `bornBefore`, whichever is earlier, by the database's clock, rounded up to a whole second; it
 * expires when nothing that exists now can live any more.
 *
 * @throws CurfewError invalid_argument.
 */
export const createSetRule =
  (lifetimes: Lifetimes) =>
  async (tx: RuleTransaction, asked: RuleAsked): Promise<CutoffRule> => {
    check([asked], asked)
    return insertRule(tx, { ...asked, bornBefore: inUtc(asked.bornBefore), id: newId() }, lifetimeOf(lifetimes))
  }

/** As `createSetRule`, for rules that differ in nothing but whom they kill. */
export const createSetRules =
  (lifetimes: Lifetimes) =>
  async (tx: RuleTransaction, { targets, ...terms }: RuleTerms & { targets: readonly RuleTarget[] }): Promise<CutoffRule[]> => {
    check(targets, terms)
    const rules = targets.map(({ issuer, organization, user }) => ({ issuer, organization, user, id: newId() }))
    return insertRules(tx, { ...terms, bornBefore: inUtc(terms.bornBefore), rules }, lifetimeOf(lifetimes))
  }
