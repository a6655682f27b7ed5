/**
 * A write that waited for a session's row as long as the connection allows (lock_timeout) has changed nothing and
 * may be asked again. Everything else that a driver throws goes up as it is.
 */
import { CurfewError } from '../errors.ts'
import { sqlState } from './postgres-failures.ts'

const LOCK_NOT_AVAILABLE = '55P03'
const DEADLOCK_DETECTED = '40P01'

/** Runs a write; a wait for a lock that took too long becomes `overloaded`, which says when to ask again. */
export const orAskAgain = async <T>(write: () => Promise<T>): Promise<T> => {
  try {
    return await write()
  } catch (error) {
    const state = sqlState(error)
    if (state !== LOCK_NOT_AVAILABLE && state !== DEADLOCK_DETECTED) throw error
    throw new CurfewError('overloaded', { says: 'Others are writing to this session, ask again shortly', cause: error })
  }
}
