/**
 * A process of the run's own. Its output goes to a file in the run's folder; `endAll` ends whatever is left, and
 * nothing else: only processes that were started here are known here.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

/** @type {Set<import('node:child_process').ChildProcess>} */
const running = new Set()
let ended = false

/** Counts a process among those that `endAll` ends. Refuses it once they have been ended. */
export const keepTrack = (/** @type {import('node:child_process').ChildProcess} */ child) => {
  running.add(child)
  child.once('error', () => running.delete(child))
  child.once('exit', () => running.delete(child))
  if (ended) child.kill('SIGKILL')
}

/**
 * @typedef {object} Child
 * @property {number} pid
 * @property {() => string} output
 * @property {() => boolean} gone
 * @property {(signal: NodeJS.Signals) => void} signal
 * @property {(options?: { withinMs?: number, signal?: NodeJS.Signals }) => Promise<boolean>} end  True where it ended by itself, with code 0.
 */

/**
 * @param {{ command: string, parameters: readonly string[], log: string, env?: NodeJS.ProcessEnv }} what
 * @returns {Child}
 */
export const startChild = ({ command, parameters, log, env }) => {
  const file = openSync(log, 'a')
  const child = spawn(command, parameters, { stdio: ['ignore', file, file], env: env ?? { PATH: process.env['PATH'] } })
  closeSync(file)
  keepTrack(child)
  const gone = () => !running.has(child)
  return {
    pid: child.pid ?? -1,
    output: () => readFileSync(log, 'utf8'),
    gone,
    signal: (signal) => void child.kill(signal),
    // The product's own stop has a deadline of 10 s.
    end: async ({ withinMs = 12_000, signal = 'SIGTERM' } = {}) => {
      if (!gone()) {
        const exited = once(child, 'exit')
        child.kill(signal)
        await Promise.race([exited, sleep(withinMs, undefined, { ref: false })])
        if (!gone()) child.kill('SIGKILL')
        if (!gone()) await exited
      }
      return child.exitCode === 0
    },
  }
}

/**
 * Waits until `find` finds something in what the process wrote.
 *
 * @template T
 * @param {Child} child
 * @param {{ find: (output: string) => T | null, withinMs: number, what: string }} wanted
 */
export const outputOf = async (child, { find, withinMs, what }) => {
  for (const until = performance.now() + withinMs; ; await sleep(20)) {
    const found = find(child.output())
    if (found !== null) return found
    if (child.gone() || performance.now() > until) {
      throw new Error(`${what} ${child.gone() ? 'ended' : 'did not start in time'}:\n${child.output().slice(-3_000)}`)
    }
  }
}

/** Kills what is left of the run's processes; for the end of a run that failed. */
export const endAll = () => {
  ended = true
  for (const child of running) child.kill('SIGKILL')
}
