/**
 * Runs the bench on a copy of what is built now, so that a build or a migration that appears meanwhile changes nothing
 * under a run. The copy lies below `node_modules`, where packages are found from it and nothing is committed, and goes
 * when the run ends.
 */
import { spawn } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const cache = join(root, 'node_modules/.cache')
mkdirSync(cache, { recursive: true })
const copy = mkdtempSync(join(cache, 'curfew-bench-'))

try {
  const wanted = (/** @type {string} */ path) => path !== join(root, 'bench/results')
  for (const name of ['bench', 'dist', 'prisma', 'package.json']) {
    cpSync(join(root, name), join(copy, name), { recursive: true, filter: wanted })
  }
  const run = spawn(process.execPath, [join(copy, 'bench/run.mjs'), ...process.argv.slice(2)], {
    stdio: 'inherit',
    env: { ...process.env, BENCH_ROOT: root },
  })
  const ended = new Promise((/** @type {(code: number | null) => void} */ resolve) => run.once('exit', resolve))
  // The run cleans up after itself when it is told to stop, once or more often; this waits for it.
  for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM'])) process.on(signal, () => run.kill(signal))
  process.exitCode = (await ended) ?? 1
} finally {
  rmSync(copy, { recursive: true, force: true })
}
