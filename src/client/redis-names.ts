/**
 * The stream's keys in Redis. All share a hash tag, so one script writes them together and a reader sees them as of
 * one moment. Guards only read.
 *
 * tombstones  sorted set: member `issuer sessionId` (an issuer has no space), score: when it may be forgotten, in ms
 * rules       sorted set: member a rule as JSON, score: when it may be forgotten, in ms
 * stream      entries {n: position, e: EntryOnTheWire as JSON}, the last two minutes of them
 * state       hash {epoch, position: that of the last entry, commit: the highest commit on it,
 *             freshMs: everything committed up to here is on it (Redis' clock), freshDbMs: the same by Postgres' clock}
 *
 * The epoch begins with the run id of the Redis that it was written for. Another run id means that this Redis has
 * started anew, perhaps from an old file: until it is whole again it serves no one.
 */
export const streamKeys = {
  tombstones: '{curfew}:tombstones',
  rules: '{curfew}:rules',
  stream: '{curfew}:stream',
  state: '{curfew}:state',
} as const

export const tombstoneMember = (issuer: string, sessionId: string): string => `${issuer} ${sessionId}`

/** The issuer and session of a member; null where it is none. */
export const readTombstoneMember = (member: string): { issuer: string; sessionId: string } | null => {
  const at = member.indexOf(' ')
  return at <= 0 ? null : { issuer: member.slice(0, at), sessionId: member.slice(at + 1) }
}

/** The run id in what `INFO server` says. */
export const runIdOf = (info: string): string => /^run_id:(\w+)/m.exec(info)?.[1] ?? ''

export const isWhole = (epoch: string | undefined, runId: string): boolean =>
  epoch !== undefined && runId !== '' && epoch.startsWith(`${runId}-`)
