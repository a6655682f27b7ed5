/** `curfew/client`: the guard, its middleware and the published wire words. It takes nothing of the server with it. */
export { createGuard } from './guard.ts'
export type { Guard, GuardOptions, GuardSource, Question } from './guard.ts'
export { expressGuard, fastifyGuard, questionOf } from './middleware.ts'
export type {
  AttemptOnTheWire, AttemptsOnTheWire, EndedOnTheWire, EntryOnTheWire, FreshOnTheWire, RuleOnTheWire, SnapshotEnd, SnapshotHead, TailOnTheWire, TombstoneOnTheWire, Verdict,
} from './wire.ts'
