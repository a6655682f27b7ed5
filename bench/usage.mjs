/** What processes use, from Linux's /proc. Elsewhere everything is 0, and the report says so. */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, readdirSync } from 'node:fs'

export const usageKnown = existsSync('/proc/self/stat')

const ticksPerSecond = usageKnown ? Number(spawnSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }).stdout) || 100 : 100

/** proc(5): after the name in parentheses come state (3), ppid (4), … utime (14), stime, cutime, cstime. */
const statOf = (/** @type {number | string} */ pid) => {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
    const seconds = (/** @type {number} */ field) => Number(fields[field - 3]) / ticksPerSecond
    return { parent: Number(fields[1]), own: seconds(14) + seconds(15), children: seconds(16) + seconds(17) }
  } catch {
    // It ended meanwhile, or this is not Linux.
    return null
  }
}

/** Processor seconds of one process so far. */
export const cpuSeconds = (/** @type {number} */ pid) => statOf(pid)?.own ?? 0

/** Processor seconds of a process and of its children, living and reaped: Postgres and its backends. */
export const familyCpuSeconds = (/** @type {number} */ pid) => {
  const parent = statOf(pid)
  if (parent === null) return 0
  const living = readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(statOf)
  return living.reduce((sum, stat) => sum + (stat?.parent === pid ? stat.own + stat.children : 0), parent.own + parent.children)
}

/** Processor seconds of this process's children that have ended. */
export const childrenCpuSeconds = () => statOf('self')?.children ?? 0

/** Resident memory in bytes. */
export const residentBytes = (/** @type {number} */ pid) => {
  try {
    return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) * 1_024
  } catch {
    return 0
  }
}

/** Open files and sockets. */
export const openHandles = (/** @type {number} */ pid) => {
  try {
    return readdirSync(`/proc/${pid}/fd`).length
  } catch {
    return 0
  }
}
