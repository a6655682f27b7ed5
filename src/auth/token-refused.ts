/** Every refusal of a bearer token looks the same outside; the reason, from a fixed set of words, is for the log. */
import { CurfewError } from '../errors.ts'

/** @param reason never holds anything of the token. */
export const tokenRefused = (reason: string): CurfewError =>
  new CurfewError('token_invalid', { cause: new Error(reason) })
