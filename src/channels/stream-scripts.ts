/**
 * The scripts that write the stream's keys (named in `client/redis-names.ts`), each one round trip and all or nothing.
 * Redis keeps them by their hash, so only the hash travels.
 */
import { createHash } from 'node:crypto'
import type { Redis } from 'ioredis'

const script = (text: string) => {
  const sha = createHash('sha1').update(text).digest('hex')
  return {
    run: async (redis: Redis, keys: readonly string[], values: readonly (string | number)[]): Promise<unknown> => {
      try {
        return await redis.evalsha(sha, keys.length, ...keys, ...values)
      } catch (error) {
        // A Redis that started anew knows no script.
        if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT')) throw error
        return redis.eval(text, keys.length, ...keys, ...values)
      }
    },
  }
}

// Lua unpacks some thousands of values at once; 1,000 are 500 pairs. GT: a later end is never shortened.
const PUT_PAIRS = (from: number): string => `
for i = ${from}, #ARGV, 1000 do
  redis.call('ZADD', KEYS[1], 'GT', unpack(ARGV, i, math.min(i + 999, #ARGV)))
end`

// The entry's id is the time, so trimming by id is trimming by age; approximately, because whole nodes go at once.
const PUT_ENTRY = `
local position = redis.call('HINCRBY', KEYS[3], 'position', 1)
local oldest = string.format('%.0f', redis.call('TIME')[1] * 1000 - ARGV[3])
redis.call('XADD', KEYS[2], 'MINID', '~', oldest, '*', 'n', position, 'e', ARGV[2])`

/** KEYS: tombstones, stream, state. ARGV: commit, entry, ms to keep it, then pairs of end and member. */
export const putTombstonesScript = script(`${PUT_PAIRS(4)}${PUT_ENTRY}
if tonumber(ARGV[1]) > tonumber(redis.call('HGET', KEYS[3], 'commit') or 0) then redis.call('HSET', KEYS[3], 'commit', ARGV[1]) end`)

/**
 * Only where the stream is at the version after which these rules come: else some would be missing in between.
 * KEYS: rules, stream, state. ARGV: version of the last, entry, ms to keep it, version before the first, then pairs.
 */
export const putRulesScript = script(`
if (redis.call('HGET', KEYS[3], 'rule') or '0') ~= ARGV[4] then return 0 end${PUT_PAIRS(5)}${PUT_ENTRY}
redis.call('HSET', KEYS[3], 'rule', ARGV[1])
return 1`)

const RUN_ID = `local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')`

/**
 * Says how fresh the stream is, where it is whole. Takes nothing back, but for what a clock said that was turned back since:
 * by Redis' clock that is what lies ahead; by the database's the last word counts, because an earlier one only has more
 * written again. KEYS: state. ARGV: database ms, ms ago.
 */
export const advanceScript = script(`${RUN_ID}
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch or string.sub(epoch, 1, #run + 1) ~= run .. '-' then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local fresh = now - ARGV[2]
local said = tonumber(redis.call('HGET', KEYS[1], 'freshMs') or 0)
if fresh > said or said > now then redis.call('HSET', KEYS[1], 'freshMs', string.format('%.0f', fresh)) end
redis.call('HSET', KEYS[1], 'freshDbMs', string.format('%.0f', ARGV[1]))
return 1`)

/** Removes what expired a minute ago or earlier, so that no clock that differs a little counts. KEYS: sets. ARGV: how many of each. */
export const pruneScript = script(`
local before = string.format('%.0f', redis.call('TIME')[1] * 1000 - 60000)
local most = 0
for _, key in ipairs(KEYS) do
  local expired = math.min(redis.call('ZCOUNT', key, '-inf', before), tonumber(ARGV[1]))
  if expired > 0 then redis.call('ZREMRANGEBYRANK', key, 0, expired - 1) end
  most = math.max(most, expired)
end
return most`)

/** Takes the turn to write it again; from here on it is not whole. KEYS: state, lock. ARGV: token, ms, distrust. Returns the run id. */
export const takeLockScript = script(`${RUN_ID}
if not redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return false end
redis.call('HDEL', KEYS[1], 'epoch')
if ARGV[3] == '1' then redis.call('HDEL', KEYS[1], 'freshMs', 'freshDbMs', 'rule') end
return run`)

/** KEYS: tombstones, lock. ARGV: token, ms, then pairs of end and member. 0: the turn was lost. */
export const restoreScript = script(`
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[2], ARGV[2])${PUT_PAIRS(3)}
return 1`)

/** Sets the new epoch, where this is still the Redis that was written. KEYS: state, lock. ARGV: token, run id, nonce, commit. */
export const openScript = script(`${RUN_ID}
if redis.call('GET', KEYS[2]) ~= ARGV[1] or run ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'epoch', run .. '-' .. ARGV[3])
if tonumber(ARGV[4]) > tonumber(redis.call('HGET', KEYS[1], 'commit') or 0) then redis.call('HSET', KEYS[1], 'commit', ARGV[4]) end
redis.call('DEL', KEYS[2])
return 1`)
