/**
 * The secrets of webhooks: made here, shown once, and from then on only ciphertexts that are bound to their receiver.
 */
import { randomBytes } from 'node:crypto'
import type { Keyring } from '../keys.ts'

export interface WebhookSecrets {
  /** A new secret as its receiver is to know it (`whsec_…`), and as it is stored. */
  make(receiverId: string): { shown: string; sealed: string }
  /** The secret's bytes. @throws KeyringError where the ciphertext is not this receiver's or not ours. */
  open(receiverId: string, sealed: string): Uint8Array
}

/** Standard Webhooks asks for 24 to 64; 32 are as many as the signature has. */
const SECRET_BYTES = 32

/** Secrets and signing keys lie under one keyring; neither can be put in the other's place. */
const placeOf = (receiverId: string): string => `webhook ${receiverId}`

export const createWebhookSecrets = ({ encrypt, decrypt }: Keyring): WebhookSecrets => ({
  make: (receiverId) => {
    const secret = randomBytes(SECRET_BYTES).toString('base64')
    return { shown: `whsec_${secret}`, sealed: encrypt(secret, placeOf(receiverId)) }
  },
  open: (receiverId, sealed) => Buffer.from(decrypt(sealed, placeOf(receiverId)), 'base64'),
})
