/**
 * Inserts sessions that are new: session, participants and `session.added` (sequence 1) in one statement, or
 * nothing of it where the id is taken or the dates are refused. It never touches a row that is there (G2).
 *
 * Ids are inserted in id order, so that two overlapping batches wait for each other instead of deadlocking.
 * What a cutoff rule kills is refused, by the rules that are committed when this judges.
 * Dates are judged by the database's clock. A date a little ahead of it is cut to now: a session born in the
 * future would escape a cutoff made now.
 */
import type { Actor, Participant } from '../model.ts'
import { CUTOFF_SAYS } from './cutoff-match.ts'
import type { Database } from './postgres.ts'
import { expiryColumns, expiryRefusal, expirySays } from './session-expiry.ts'
import type { Expiry } from './session-expiry.ts'
import { wireTime } from './wire-time.ts'

export interface UserAgent {
  readonly fingerprintId: string | null
  readonly ip: string | null
  readonly description: string | null
}

/** A parsed registration. Times are RFC 3339; `hash` is SHA-256 over its canonical form, `tokenHash` over its token. */
export interface Registration {
  readonly id: string
  readonly issuer: string
  readonly userId: string
  readonly resourceOwner: string
  readonly clients: readonly Participant[]
  readonly userAgent: UserAgent | null
  /** Base64 values. */
  readonly metadata: Readonly<Record<string, string>>
  readonly cacheKeys: readonly string[]
  readonly creationDate: string | null
  readonly authTime: string | null
  readonly expiry: Expiry | null
  readonly hash: Uint8Array
  readonly tokenHash: Uint8Array
}

/** The public sentence for each reason why a registration is refused for what it says itself. */
export const addSays = {
  born_under_rule: CUTOFF_SAYS,
  creation_in_future: 'creationDate must not lie in the future',
  authentication_in_future: 'authTime must not lie in the future',
  ...expirySays,
} as const

/** How far a registrar's clock may be ahead of the database's: the same 30 s as for access tokens. */
const CLOCK_TOLERANCE = `interval '30 seconds'`

const ADD = `
WITH clock AS MATERIALIZED (
  SELECT date_trunc('milliseconds', clock_timestamp()) AS at
), asked AS MATERIALIZED (
  SELECT r.*, c.at,
         coalesce(r.expires_at, c.at + r.lifetime_ms * interval '1 millisecond', c.at + $2::float8 * interval '1 second') AS ends
  FROM jsonb_to_recordset($1::jsonb) AS r(
    n int, id text, issuer text, user_id text, resource_owner text, clients jsonb, fingerprint_id text, ip inet,
    user_agent jsonb, metadata jsonb, cache_keys jsonb, creation_date timestamptz, auth_time timestamptz,
    expires_at timestamptz, lifetime_ms float8, hash text, token_hash text) CROSS JOIN clock c
), dated AS MATERIALIZED (
  SELECT a.*, CASE
      WHEN a.creation_date > a.at + ${CLOCK_TOLERANCE} THEN 'creation_in_future'
      WHEN a.auth_time > a.at + ${CLOCK_TOLERANCE} THEN 'authentication_in_future'
      ELSE ${expiryRefusal({ ends: 'a.ends', at: 'a.at', maxSeconds: '$2::float8' })}
    END AS date_refusal,
    least(a.creation_date, a.at) AS created_at, least(coalesce(a.auth_time, a.creation_date), a.at)::timestamptz(3) AS born
  FROM asked a
), judged AS MATERIALIZED (
  SELECT d.*, coalesce(d.date_refusal,
    CASE WHEN cutoff_rule_of(d.issuer, d.resource_owner, d.user_id, d.id, d.born) IS NOT NULL THEN 'born_under_rule' END) AS refusal
  FROM dated d
), added AS (
  INSERT INTO sessions (id, issuer, user_id, resource_owner, sequence, token_hash, registration_hash, creator_issuer,
    creator_subject, fingerprint_id, ip, user_agent, metadata, cache_keys, born, created_at, change_date, expires_at)
  SELECT j.id, j.issuer, j.user_id, j.resource_owner, 1, decode(j.token_hash, 'hex'), decode(j.hash, 'hex'), $3, $4,
    j.fingerprint_id, j.ip, j.user_agent, j.metadata, ARRAY(SELECT jsonb_array_elements_text(j.cache_keys)),
    j.born, j.created_at, j.at, j.ends
  FROM judged j WHERE j.refusal IS NULL
  ORDER BY j.id COLLATE "C"
  ON CONFLICT (id) DO NOTHING
  RETURNING id, change_date
), participants AS (
  INSERT INTO session_clients (session_id, client_id, sid, sub)
  SELECT j.id, p."clientId", p.sid, p.sub
  FROM added JOIN judged j ON j.id = added.id
    CROSS JOIN LATERAL jsonb_to_recordset(j.clients) AS p("clientId" text, sid text, sub text)
), told AS (
  INSERT INTO session_events (session_id, sequence, type, payload, actor_issuer, actor_subject, resource_owner, created_at)
  SELECT j.id, 1, 'session.added', jsonb_build_object('issuer', j.issuer, 'userId', j.user_id, 'clients', j.clients,
    'born', ${wireTime('j.born')}, 'expirationDate', ${wireTime('j.ends')}), $3, $4, j.resource_owner, added.change_date
  FROM added JOIN judged j ON j.id = added.id
)
SELECT j.n, j.refusal, ${wireTime('added.change_date')} AS change_date
FROM judged j LEFT JOIN added ON added.id = j.id`

export interface AddAnswer {
  /** Position in the call. */
  readonly n: number
  /** Why it is refused for what it says itself, or null. */
  readonly refusal: keyof typeof addSays | null
  /** When it was added; null where it was not, because of `refusal` or because the id is taken. */
  readonly change_date: string | null
}

/** A registration and its position in the caller's list. */
export interface Numbered {
  readonly n: number
  readonly registration: Registration
}

export const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

const rowOf = ({ n, registration }: Numbered) => ({
  n,
  id: registration.id,
  issuer: registration.issuer,
  user_id: registration.userId,
  resource_owner: registration.resourceOwner,
  clients: registration.clients,
  fingerprint_id: registration.userAgent?.fingerprintId,
  ip: registration.userAgent?.ip,
  user_agent: registration.userAgent && { description: registration.userAgent.description },
  metadata: registration.metadata,
  cache_keys: registration.cacheKeys,
  creation_date: registration.creationDate,
  auth_time: registration.authTime,
  ...expiryColumns(registration.expiry),
  hash: hex(registration.hash),
  token_hash: hex(registration.tokenHash),
})

/**
 * Adds those that are new, whose dates are good and that no rule kills; answers for each, in any order. Ids must differ within a call.
 * May be repeated: a taken id changes nothing. Waits for another's uncommitted insert of the same id.
 */
export const addSessions = (
  db: Pick<Database, '$queryRawUnsafe'>,
  { actor, maxLifetimeSeconds, asked }: { actor: Actor; maxLifetimeSeconds: number; asked: readonly Numbered[] },
): Promise<AddAnswer[]> =>
  db.$queryRawUnsafe(ADD, JSON.stringify(asked.map(rowOf)), maxLifetimeSeconds, actor.issuer, actor.subject)
