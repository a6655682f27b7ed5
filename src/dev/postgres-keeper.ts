/**
 * A process of its own that runs Postgres for as long as its standard input is open, and no longer: when whoever
 * started it ends it, exits or is killed, the pipe closes and Postgres is shut down in order.
 *
 * It stands between the two because Ctrl-C in a terminal reaches every child: Postgres would go away under a service
 * that still has requests to finish. Started detached, neither the keeper nor Postgres sees that signal.
 */
import { spawn } from 'node:child_process'

/** What to run, as JSON in the one argument. `uid` and `gid` only where the keeper runs as root. */
export interface KeeperOrder {
  readonly command: string
  readonly parameters: readonly string[]
  readonly uid?: number
  readonly gid?: number
}

/** A fast shutdown ends transactions and writes a checkpoint; a demo's takes milliseconds. */
const SHUTDOWN_MS = 10_000

const order = JSON.parse(process.argv[2] ?? '') as KeeperOrder
const { command, parameters, ...account } = order
const server = spawn(command, parameters, { ...account, stdio: ['ignore', 'inherit', 'inherit'] })

server.on('error', (error) => {
  process.stderr.write(`${error.message}\n`)
  process.exit(1)
})
server.on('exit', (code) => process.exit(code ?? 1))

process.stdin.resume()
process.stdin.on('close', () => {
  server.kill('SIGINT')
  setTimeout(() => server.kill('SIGQUIT'), SHUTDOWN_MS).unref()
})
