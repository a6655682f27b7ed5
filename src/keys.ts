/**
 * Encryption of what must lie in Postgres but not be readable there: private signing keys and the secrets of webhooks.
 *
 * AES-256-GCM with a fresh random nonce for each text. A ciphertext is `v1.<key>.<nonce>.<bytes>`; it names its key
 * by a digest, so that a text under the former key is still read while `KEY_ENCRYPTION_KEY` is being rotated.
 */
import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto'

export interface Keyring {
  /** @param boundTo where the text belongs (its row's id): a ciphertext copied to another place does not decrypt. */
  encrypt(text: string, boundTo?: string): string
  /** @throws KeyringError where the key is not ours, or the text was changed or belongs elsewhere. */
  decrypt(ciphertext: string, boundTo?: string): string
}

/** A ciphertext cannot be read. Says nothing of its content. */
export class KeyringError extends Error {
  override readonly name = 'KeyringError'
}

const VERSION = 'v1'
const NONCE_BYTES = 12
const TAG_BYTES = 16

/** What names a key in its ciphertexts: a digest that does not reveal it. */
const nameOf = (key: Uint8Array): string =>
  createHash('sha256').update('curfew key name').update(key).digest('base64url').slice(0, 11)

/** @param encryptionKey 32 bytes, encrypts and decrypts. @param encryptionKeyPrevious only decrypts. */
export const createKeyring = (deps: { encryptionKey: Uint8Array; encryptionKeyPrevious: Uint8Array | null }): Keyring => {
  const { encryptionKey, encryptionKeyPrevious } = deps
  const keys = new Map<string, Uint8Array>()
  if (encryptionKeyPrevious !== null) keys.set(nameOf(encryptionKeyPrevious), encryptionKeyPrevious)
  const currentName = nameOf(encryptionKey)
  keys.set(currentName, encryptionKey)

  return {
    encrypt: (text, boundTo = '') => {
      const nonce = randomBytes(NONCE_BYTES)
      const cipher = createCipheriv('aes-256-gcm', encryptionKey, nonce).setAAD(Buffer.from(boundTo))
      const bytes = Buffer.concat([cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()])
      return [VERSION, currentName, nonce.toString('base64url'), bytes.toString('base64url')].join('.')
    },
    decrypt: (ciphertext, boundTo = '') => {
      const [version, name, nonce, bytes] = ciphertext.split('.')
      if (version !== VERSION || name === undefined || nonce === undefined || bytes === undefined) throw new KeyringError('The ciphertext is of an unknown form')
      const key = keys.get(name)
      if (key === undefined) throw new KeyringError('The ciphertext is under a key that is not configured (KEY_ENCRYPTION_KEY, KEY_ENCRYPTION_KEY_PREVIOUS)')
      const sealed = Buffer.from(bytes, 'base64url')
      try {
        const decipher = createDecipheriv('aes-256-gcm', key, Buffer.from(nonce, 'base64url'), { authTagLength: TAG_BYTES })
        decipher.setAAD(Buffer.from(boundTo)).setAuthTag(sealed.subarray(-TAG_BYTES))
        return decipher.update(sealed.subarray(0, -TAG_BYTES), undefined, 'utf8') + decipher.final('utf8')
      } catch (cause) {
        throw new KeyringError('The ciphertext does not authenticate', { cause })
      }
    },
  }
}
