/**
 * What the demo keeps secret, made once and kept beside its data in a file that only its owner can read. The same
 * secrets on the next start, so that encrypted keys and waiting jobs of the last one still count.
 */
import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { exportJWK, generateKeyPair } from 'jose'
import type { JWK } from 'jose'

export interface DemoSecrets {
  readonly databasePassword: string
  /** `QUEUE_SECRET` and `KEY_ENCRYPTION_KEY`: 32 bytes in base64. */
  readonly queueSecret: string
  readonly keyEncryptionKey: string
  /** The relying party's secret at the demo issuer. */
  readonly clientSecret: string
  /** The demo issuer's private signing key (RS256), without a name. */
  readonly issuerKey: JWK
}

/** Reads the file, or makes it. */
export const readDemoSecrets = async (file: string): Promise<DemoSecrets> => {
  if (existsSync(file)) return JSON.parse(readFileSync(file, 'utf8')) as DemoSecrets
  const { privateKey } = await generateKeyPair('RS256', { extractable: true })
  const secrets: DemoSecrets = {
    databasePassword: randomBytes(24).toString('base64url'),
    queueSecret: randomBytes(32).toString('base64'),
    keyEncryptionKey: randomBytes(32).toString('base64'),
    clientSecret: randomBytes(24).toString('base64url'),
    issuerKey: { ...(await exportJWK(privateKey)), alg: 'RS256', use: 'sig' },
  }
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 })
  // Whole or not at all: half a file would lock the demo out of its own database.
  writeFileSync(`${file}.making`, JSON.stringify(secrets), { mode: 0o600 })
  renameSync(`${file}.making`, file)
  return secrets
}
