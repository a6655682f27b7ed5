/**
 * The sessions that are registered with us: how they come in, change and are read. How they end is `terminations.ts`.
 */
import type { Database } from './postgres.ts'
import { createAddParticipant } from './session-participants.ts'
import { createReadFingerprint, createReadSession } from './session-read.ts'
import { createRegister } from './session-register.ts'
import { createSearchSessions } from './session-search.ts'
import { createUpdate } from './session-update.ts'

export interface SessionStoreDeps {
  readonly db: Database
  /** The longest a session may live from now, and how long it lives unless told. */
  readonly maxLifetimeSeconds: number
  /** How long a token can outlive its session. */
  readonly maxTokenLifetimeSeconds: number
}

/** All that the routes of sessions need of Postgres. */
export const createSessionStore = (deps: SessionStoreDeps) => ({
  ...createRegister(deps),
  update: createUpdate(deps),
  addParticipant: createAddParticipant(deps),
  read: createReadSession(deps.db),
  readFingerprint: createReadFingerprint(deps.db),
  search: createSearchSessions(deps.db),
})

export type SessionStore = ReturnType<typeof createSessionStore>
