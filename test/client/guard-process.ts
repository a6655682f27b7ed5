/** A guard in a process of its own, as a resource server has it: the built package, and nothing of the server's. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { Question } from '../../src/client/index.ts'

const client = new URL('../../dist/client/index.js', import.meta.url).href

const program = `
import { createInterface } from 'node:readline'
import { createGuard } from ${JSON.stringify(client)}
const guard = await createGuard({ ...JSON.parse(process.argv[1]), onError: (error) => console.error(error) })
console.log('ready')
for await (const line of createInterface({ input: process.stdin })) {
  const { id, questions } = JSON.parse(line)
  globalThis.gc?.()
  const atMs = performance.timeOrigin + performance.now()
  console.log(JSON.stringify({ id, atMs, staleMs: guard.staleMs, holds: guard.holds, verdicts: questions.map((question) => guard.check(question)) }))
}
await guard.close()
`

export interface Judged {
  readonly verdicts: readonly string[]
  /** Null: it has no snapshot yet. */
  readonly staleMs: number | null
  readonly holds: { readonly tombstones: number; readonly bytes: number }
}

export interface GuardProcess {
  ask(questions: readonly Question[]): Promise<Judged>
  readonly said: readonly string[]
  /** Closes the guard, and waits until nothing of it is left. */
  stop(): Promise<void>
}

/** Starts one and waits until its guard is made. With `collects` garbage is collected before each answer. */
export const startGuardProcess = async (options: object, { collects = false } = {}): Promise<GuardProcess> => {
  const child = spawn(process.execPath, [...(collects ? ['--expose-gc'] : []), '--input-type=module', '-e', program, JSON.stringify(options)], {
    cwd: fileURLToPath(new URL('../..', import.meta.url)),
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  const exited = once(child, 'exit')
  const said: string[] = []
  createInterface({ input: child.stderr }).on('line', (line) => said.push(line))
  const waiting = new Map<number, (judged: Judged) => void>()
  let next = 0
  await new Promise<void>((resolve, reject) => {
    void exited.then(() => reject(new Error(`The guard's process ended: ${said.join('\n')}`)))
    createInterface({ input: child.stdout }).on('line', (line) => {
      if (line === 'ready') {
        resolve()
        return
      }
      const { id, ...judged } = JSON.parse(line) as Judged & { id: number }
      waiting.get(id)?.(judged)
      waiting.delete(id)
    })
  })
  return {
    said,
    ask: (questions) => new Promise((resolve) => {
      next += 1
      waiting.set(next, resolve)
      child.stdin.write(`${JSON.stringify({ id: next, questions })}\n`)
    }),
    stop: async () => {
      child.stdin.end()
      const [code] = (await exited) as [number | null]
      if (code !== 0) throw new Error(`The guard's process ended with ${code}: ${said.join('\n')}`)
    },
  }
}
