/**
 * `npm start`: the whole of Curfew in one process, for trying it out. Real Postgres, the queue on Postgres, API and
 * workers, beside them a demo issuer and a demo relying party with a user who is signed in.
 *
 * Listens on loopback only, refuses `NODE_ENV=production`, keeps its data and secrets in `.curfew` of the folder it is
 * started in. Ctrl-C (SIGINT, SIGTERM, SIGHUP) stops everything, Postgres last; so does the end of npm or of Postgres.
 */
import { join } from 'node:path'
import { inspect } from 'node:util'
import { stopWithin } from '../main.ts'
import { createDemo } from './demo.ts'
import { StartRefused, readStartOptions } from './start-options.ts'

/** Each part of the demo stops within its own bound; this is for all of them. */
const STOP_MS = 30_000

/** Soon enough for whoever waits for the ports, and next to no work. */
const PARENT_EVERY_MS = 250

const say = (text: string): void => void process.stdout.write(`${text}\n`)

const start = async (): Promise<number> => {
  const demo = createDemo({ ...(await readStartOptions(process.env)), folder: join(process.cwd(), '.curfew'), say })
  const told = new Promise<number>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => resolve(0))
    whenOrphaned(() => resolve(0))
    void demo.lost.then((why) => {
      say(why)
      resolve(1)
    })
  })
  const failed = demo.start().then(
    () => told,
    (error: unknown) => {
      say(`Curfew could not start: ${error instanceof Error ? error.message : String(error)}`)
      return 1
    },
  )
  const code = await Promise.race([told, failed])
  say('Stopping …')
  const inTime = await stopWithin(() => demo.stop(), STOP_MS)
  say(inTime ? 'Stopped.' : 'Some parts did not stop in time.')
  return inTime ? code : 1
}

/**
 * npm runs us in a shell, and a signal to npm alone ends npm and that shell but does not reach us. Run by hand, the shell
 * may well go first.
 */
const whenOrphaned = (stop: () => void): void => {
  if (process.env['npm_lifecycle_event'] === undefined) return
  const parent = process.ppid
  setInterval(() => {
    if (process.ppid !== parent) stop()
  }, PARENT_EVERY_MS).unref()
}

start().then(
  (code) => process.exit(code),
  (error: unknown) => {
    process.stderr.write(error instanceof StartRefused ? `${error.message}\n` : `${inspect(error)}\n`)
    process.exit(1)
  },
)
