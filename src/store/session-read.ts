/**
 * Reading sessions: who may read which, as SQL, and one session by its id. Only live sessions are read: from the
 * moment a termination, or a cutoff rule that kills it, is committed a session is neither found nor listed. Expired ones are live until ended.
 */
import type { Actor } from '../model.ts'
import { noRuleKills } from './cutoff-match.ts'
import type { Database } from './postgres.ts'
import type { UserAgent } from './session-add.ts'
import { wireTime } from './wire-time.ts'

/** Who reads: their own sessions, and those within `reach`; nothing beyond the issuers they speak for. */
export interface Reader {
  readonly actor: Actor
  readonly issuers: readonly string[]
  /** Where they hold `session.read`; null: nowhere. */
  readonly reach: 'instance' | ReadonlySet<string> | null
}

/** A session as readers see it. Times are RFC 3339 UTC with three fractional digits. */
export interface SessionView {
  readonly id: string
  readonly creationDate: string
  readonly changeDate: string
  readonly sequence: string
  readonly userId: string
  readonly resourceOwner: string
  readonly born: string
  readonly expirationDate: string
  readonly metadata: Readonly<Record<string, string>>
  readonly userAgent: UserAgent | null
}

/** The columns of a `SessionRow`, of sessions `s`. */
export const sessionColumns = `s.id, ${wireTime('s.created_at')} AS creation_date, ${wireTime('s.change_date')} AS change_date,
  s.sequence::text AS sequence, s.user_id, s.resource_owner, ${wireTime('s.born')} AS born,
  ${wireTime('s.expires_at')} AS expiration_date, s.metadata, s.fingerprint_id, host(s.ip) AS ip,
  s.user_agent ->> 'description' AS description`

export interface SessionRow {
  readonly id: string
  readonly creation_date: string
  readonly change_date: string
  readonly sequence: string
  readonly user_id: string
  readonly resource_owner: string
  readonly born: string
  readonly expiration_date: string
  readonly metadata: Record<string, string>
  readonly fingerprint_id: string | null
  readonly ip: string | null
  readonly description: string | null
}

export const viewOf = (row: SessionRow): SessionView => ({
  id: row.id,
  creationDate: row.creation_date,
  changeDate: row.change_date,
  sequence: row.sequence,
  userId: row.user_id,
  resourceOwner: row.resource_owner,
  born: row.born,
  expirationDate: row.expiration_date,
  metadata: row.metadata,
  userAgent:
    row.fingerprint_id === null && row.ip === null && row.description === null
      ? null
      : { fingerprintId: row.fingerprint_id, ip: row.ip, description: row.description },
})

const READ = `
SELECT ${sessionColumns}, s.issuer, s.token_hash FROM sessions s
WHERE s.id = $1 AND s.issuer = ANY($2::text[]) AND s.state = 'active' AND ${noRuleKills('s')}`

/** What was found, whether the reader may see it by what they are, and the hash of the token that also lets them. */
export interface FoundSession {
  readonly session: SessionView
  readonly readable: boolean
  readonly tokenHash: Uint8Array | null
}

type FoundRow = SessionRow & { readonly issuer: string; readonly token_hash: Uint8Array | null }

const isReadable = ({ actor, reach }: Reader, row: FoundRow): boolean =>
  reach === 'instance' ||
  (row.issuer === actor.issuer && row.user_id === actor.subject) ||
  (reach !== null && reach.has(row.resource_owner))

/** Makes the read of one live session; null where there is none within the reader's issuers. */
export const createReadSession =
  (db: Database) =>
  async (reader: Reader, id: string): Promise<FoundSession | null> => {
    const [row] = await db.$queryRawUnsafe<FoundRow[]>(READ, id, reader.issuers)
    return row === undefined ? null : { session: viewOf(row), readable: isReadable(reader, row), tokenHash: row.token_hash }
  }

const FINGERPRINT = `
SELECT s.fingerprint_id FROM sessions s WHERE s.id = $1 AND s.issuer = ANY($2::text[])
UNION ALL
SELECT s.fingerprint_id FROM session_clients c JOIN sessions s ON s.id = c.session_id
WHERE c.sid = $1 AND s.issuer = ANY($2::text[])
LIMIT 1`

/** Makes the read of the user agent behind a token's `sid`: a session's id, or what a participant calls it. Null: not known. */
export const createReadFingerprint =
  (db: Database) =>
  async (issuers: readonly string[], sid: string): Promise<string | null> => {
    const [row] = await db.$queryRawUnsafe<{ fingerprint_id: string | null }[]>(FINGERPRINT, sid, issuers)
    return row?.fingerprint_id ?? null
  }
