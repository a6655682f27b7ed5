/** The commands as an operator runs them: the built entry, its words and its exit code. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url))

export const curfew = async (parameters: readonly string[], settings: Record<string, string | undefined> = {}) => {
  const child = spawn(process.execPath, [cli, ...parameters], { env: { PATH: process.env['PATH'], ...settings } })
  let [out, err] = ['', '']
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString('utf8')))
  child.stderr.on('data', (chunk: Buffer) => (err += chunk.toString('utf8')))
  const [code] = (await once(child, 'close')) as [number]
  return { code, out, err }
}
