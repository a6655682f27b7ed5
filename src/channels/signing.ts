/**
 * Signing in an issuer's name: which key signs now, and the keys' life in Postgres (next, current, retired).
 *
 * The current key is kept in memory for a few seconds, so that a rotation by another process is followed within that
 * time; the former key stays published, so nothing signed in between is refused. Signatures are made on the thread
 * pool, never on the event loop. Private keys leave `KEY_ENCRYPTION_KEY` only here.
 */
import { sign as signBytes } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import type { JWK } from 'jose'
import { CurfewError } from '../errors.ts'
import type { Keyring } from '../keys.ts'
import type { Database } from '../store/postgres.ts'
import { insertKey, makeCurrent, promoteKey, readCurrentKey, readKey, readPublishedKeys, readSigningKeys } from '../store/signing-keys.ts'
import type { NewSigningKey, SigningKeyRow } from '../store/signing-keys.ts'
import { exportPrivateKey, importPrivateKey, isSigningAlgorithm, makeSigningKey, parseSigningKey } from './signing-key.ts'
import type { SigningAlgorithm, SigningKey } from './signing-key.ts'

/** How long another process may go on signing with the former key after a rotation. */
const REFRESH_MS = 5_000
/** Issuers whose keys are held in memory at once; one more is read again from Postgres. */
const MAX_HELD_KEYS = 1_000
/** A day: longer than any relying party is known to cache key sets, and than a delivery is tried. */
const OVERLAP_SECONDS = 86_400
/** What was signed last with a key that retired: a refresh later, and good for two minutes. */
const AFTERGLOW_SECONDS = 300

/** A key as operators see it; never the private half. */
export type ListedKey = Omit<SigningKeyRow, 'privateKey'>

export interface CurrentKey {
  readonly kid: string
  readonly alg: SigningAlgorithm
  readonly privateKey: KeyObject
  readonly publicJwk: JWK
}

export interface Signer {
  /** A compact JWS over the claims, with the issuer's current key; makes a key where there is none. */
  sign(asked: { issuer: string; alg: string; typ: string; claims: Readonly<Record<string, unknown>> }): Promise<string>
  /** The key that signs now; made where there is none. */
  currentKey(issuer: string, alg: string): Promise<CurrentKey>
  /** The public keys that relying parties may meet: next, current, lately retired. Empty for an unknown issuer. */
  publicJwks(issuer: string): Promise<{ keys: JWK[] }>
  /** Makes a current key where there is none. May be repeated and run by several processes at once. */
  ensureKey(issuer: string, alg: string): Promise<{ kid: string; made: boolean }>
  /** Makes an operator's key the current one. May be repeated. @throws CurfewError invalid_argument for an unfit key. */
  importKey(issuer: string, key: JWK | string): Promise<{ kid: string; alg: SigningAlgorithm }>
  /**
   * Publishes a next key where there is none; else promotes it, and the current one retires.
   *
   * @param force promotes it also before it was published for the overlap.
   * @throws KeyTooYoung where it was not, with the time from which it may sign.
   */
  rotate(issuer: string, alg: string, options?: { force?: boolean }): Promise<Rotated>
  /** All keys, or those of one issuer. */
  list(issuer?: string): Promise<ListedKey[]>
}

/** A next key may not sign yet. The message says from when on. */
export class KeyTooYoung extends Error {}

export type Rotated =
  | { readonly made: string; readonly ripeAt: Date }
  | { readonly promoted: string; readonly retired: string | null }

interface HeldKey {
  readonly key: CurrentKey
  readonly header: Map<string, string>
  readonly readAtMs: number
}

const checkAlgorithm = (alg: string): SigningAlgorithm => {
  if (!isSigningAlgorithm(alg)) throw new CurfewError('invalid_argument', { says: 'Invalid alg: RS256 and ES256 are signed here' })
  return alg
}

/** @param overlapSeconds a next key is published before it signs. @param retiredSeconds a key is published after it signed. */
export const createSigner = (deps: {
  db: Database
  keyring: Keyring
  overlapSeconds?: number
  retiredSeconds?: number
  now?: () => number
  refreshMs?: number
}): Signer => {
  const { db, keyring, overlapSeconds = OVERLAP_SECONDS, retiredSeconds = OVERLAP_SECONDS, now = Date.now, refreshMs = REFRESH_MS } = deps
  const held = new LRUCache<string, HeldKey>({ max: MAX_HELD_KEYS })
  const reading = new Map<string, Promise<HeldKey>>()

  const rowOf = (issuer: string, key: SigningKey, imported: boolean): NewSigningKey => ({
    id: key.kid, issuer, alg: key.alg, publicJwk: key.publicJwk, imported,
    privateKey: keyring.encrypt(exportPrivateKey(key.privateKey), key.kid),
  })

  const ripeAt = ({ createdAt }: SigningKeyRow): Date => new Date(createdAt.getTime() + overlapSeconds * 1_000)

  const ensureRow = async (issuer: string, alg: SigningAlgorithm): Promise<{ row: SigningKeyRow; made: boolean }> => {
    const found = await readCurrentKey(db, issuer, alg)
    if (found !== null) return { row: found, made: false }
    const made = await insertKey(db, rowOf(issuer, await makeSigningKey(alg), false), 'current')
    const row = await readCurrentKey(db, issuer, alg)
    if (row === null) throw new Error('The signing key vanished while it was being made')
    return { row, made }
  }

  const read = async (issuer: string, alg: SigningAlgorithm, name: string): Promise<HeldKey> => {
    const { row } = await ensureRow(issuer, alg)
    const before = held.peek(name)
    const key = before?.key.kid === row.id
      ? before.key
      : { kid: row.id, alg, publicJwk: row.publicJwk, privateKey: importPrivateKey(keyring.decrypt(row.privateKey, row.id)) }
    const fresh = { key, header: before?.key === key ? before.header : new Map<string, string>(), readAtMs: now() }
    held.set(name, fresh)
    return fresh
  }

  const heldKey = (issuer: string, alg: SigningAlgorithm): HeldKey | Promise<HeldKey> => {
    const name = `${alg} ${issuer}`
    const known = held.get(name)
    if (known !== undefined && now() - known.readAtMs < refreshMs) return known
    let asked = reading.get(name)
    if (asked === undefined) {
      asked = read(issuer, alg, name).finally(() => reading.delete(name))
      reading.set(name, asked)
    }
    return asked
  }

  return {
    sign: async ({ issuer, alg, typ, claims }) => {
      const found = heldKey(issuer, checkAlgorithm(alg))
      const { key, header } = found instanceof Promise ? await found : found
      let head = header.get(typ)
      if (head === undefined) {
        head = base64url(JSON.stringify({ alg: key.alg, typ, kid: key.kid }))
        header.set(typ, head)
      }
      const input = `${head}.${base64url(JSON.stringify(claims))}`
      return `${input}.${(await signatureOf(key, input)).toString('base64url')}`
    },
    currentKey: async (issuer, alg) => (await heldKey(issuer, checkAlgorithm(alg))).key,
    publicJwks: async (issuer) => ({
      keys: (await readPublishedKeys(db, issuer, retiredSeconds + AFTERGLOW_SECONDS)).map(({ publicJwk }) => publicJwk),
    }),
    ensureKey: async (issuer, alg) => {
      const { row, made } = await ensureRow(issuer, checkAlgorithm(alg))
      return { kid: row.id, made }
    },
    importKey: async (issuer, given) => {
      const key = await parseSigningKey(given)
      const same = await readKey(db, key.kid)
      if (same !== null && (same.issuer !== issuer || same.publicJwk.n !== key.publicJwk.n || same.publicJwk.x !== key.publicJwk.x)) {
        throw new CurfewError('invalid_argument', { says: 'Invalid signing key: another key of that name ("kid") is here already' })
      }
      await makeCurrent(db, rowOf(issuer, key, true))
      held.delete(`${key.alg} ${issuer}`)
      return { kid: key.kid, alg: key.alg }
    },
    rotate: async (issuer, given, { force = false } = {}) => {
      const alg = checkAlgorithm(given)
      const { row: current } = await ensureRow(issuer, alg)
      const next = (await readSigningKeys(db, issuer)).find((key) => key.alg === alg && key.state === 'next')
      if (next === undefined) {
        const key = rowOf(issuer, await makeSigningKey(alg), false)
        const made = (await insertKey(db, key, 'next')) ? await readKey(db, key.id) : null
        if (made === null) throw new CurfewError('unavailable', { says: 'Someone else rotates this key at the same time' })
        return { made: made.id, ripeAt: ripeAt(made) }
      }
      if (!(await promoteKey(db, { issuer, alg, kid: next.id, publishedSeconds: force ? 0 : overlapSeconds }))) {
        throw new KeyTooYoung(`The next key ${next.id} may sign from ${ripeAt(next).toISOString()}: relying parties must have had time to fetch it`)
      }
      held.delete(`${alg} ${issuer}`)
      return { promoted: next.id, retired: current.id }
    },
    list: async (issuer) =>
      (await readSigningKeys(db, issuer ?? null)).map(({ privateKey: _hidden, ...listed }) => listed),
  }
}

const base64url = (text: string): string => Buffer.from(text).toString('base64url')

/** RFC 7515 §5.1, RFC 7518 §3.3 and §3.4; made on the thread pool. */
const signatureOf = ({ privateKey }: CurrentKey, input: string): Promise<Buffer> =>
  new Promise((resolve, reject) => {
    signBytes('sha256', Buffer.from(input), { key: privateKey, dsaEncoding: 'ieee-p1363' }, (error, signature) => {
      if (error === null) resolve(signature)
      else reject(error)
    })
  })
