/**
 * The payload of a wake-up: an id, and nothing that could do harm if it were forged.
 */
import { createHash } from 'node:crypto'
import { JobRefused } from './jobs.ts'
import type { WakeLane } from './lanes.ts'

const LONGEST_ID = 200

export interface WakePayload {
  readonly v: 1
  readonly id: string
}

export const wakePayload = (id: string): WakePayload => ({ v: 1, id })

/** @throws JobRefused */
export const openWake = (payload: unknown): string => {
  if (typeof payload !== 'object' || payload === null) throw new JobRefused('malformed')
  const { v, id } = payload as { v?: unknown; id?: unknown }
  if (typeof id !== 'string' || id === '' || id.length > LONGEST_ID) throw new JobRefused('malformed')
  if (v !== 1) throw new JobRefused('version')
  return id
}

/** The name under which wake-ups of one id are one: any id, in letters that every store takes. */
export const wakeKey = (lane: WakeLane, id: string): string => `${lane}-${createHash('sha256').update(id).digest('base64url')}`
