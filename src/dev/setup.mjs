/**
 * Makes a clone ready to run: packages installed, Prisma's client generated, TypeScript compiled. npm runs it before
 * `start` and `test`; it is plain Node, because it runs when nothing is installed yet.
 *
 * Each of the three is done only where it is missing or stale, so a second run takes a fraction of a second. What is
 * compiled appears in `dist` at once or not at all: a failed or interrupted build leaves the former one whole.
 * Exit code 1, with the failing tool's own words, where a step fails.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const project = fileURLToPath(new URL('../..', import.meta.url))
const inProject = (/** @type {string} */ path) => join(project, path)
const stampsFile = inProject('node_modules/.cache/curfew.json')

const main = () => {
  if (!installed()) {
    say('Installing packages')
    // Under NODE_ENV=production npm would leave out the compiler.
    npm(['ci', '--include=dev', '--no-fund', '--no-audit'])
  }
  const stamps = readStamps()
  const schema = hashOf(['package-lock.json', 'prisma/schema.prisma', 'prisma.config.ts'])
  if (stamps.generated !== schema || !existsSync(inProject('src/store/generated/client.ts'))) {
    say('Generating the database client')
    node(['node_modules/prisma/build/index.js', 'generate'])
    writeStamps({ ...stamps, generated: schema })
  }
  const source = hashOf(['package-lock.json', 'tsconfig.json', ...filesUnder('src').filter((path) => path.endsWith('.ts'))])
  if (stamps.built !== source || !existsSync(inProject('dist/cli.js'))) {
    say('Compiling')
    compile()
    writeStamps({ ...readStamps(), built: source })
  }
}

/** npm notes in `node_modules` what it installed; every package of the lock must be there in the locked version. */
const installed = () => {
  const note = inProject('node_modules/.package-lock.json')
  if (!existsSync(note)) return false
  const there = JSON.parse(readFileSync(note, 'utf8')).packages
  const locked = JSON.parse(readFileSync(inProject('package-lock.json'), 'utf8')).packages
  return Object.entries(locked).every(
    ([path, { version, optional }]) => path === '' || optional === true || there[path]?.version === version,
  )
}

const compile = () => {
  const fresh = `dist.${process.pid}`
  const former = `dist.${process.pid}.former`
  try {
    node(['node_modules/typescript/bin/tsc', '-p', '.', '--outDir', fresh])
    if (existsSync(inProject('dist'))) renameSync(inProject('dist'), inProject(former))
    renameSync(inProject(fresh), inProject('dist'))
  } finally {
    for (const folder of [fresh, former]) rmSync(inProject(folder), { recursive: true, force: true })
  }
}

const readStamps = () => (existsSync(stampsFile) ? JSON.parse(readFileSync(stampsFile, 'utf8')) : {})

const writeStamps = (/** @type {Record<string, string>} */ stamps) => {
  mkdirSync(dirname(stampsFile), { recursive: true })
  writeFileSync(stampsFile, JSON.stringify(stamps))
}

const filesUnder = (/** @type {string} */ folder) =>
  readdirSync(inProject(folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(project.length))
    .sort()

const hashOf = (/** @type {string[]} */ paths) => {
  const hash = createHash('sha256').update(process.version)
  for (const path of paths) hash.update(`\0${path}\0`).update(readFileSync(inProject(path)))
  return hash.digest('hex')
}

/** The npm that runs this script, else the one on the path. */
const npm = (/** @type {string[]} */ parameters) => {
  const cli = process.env['npm_execpath']
  if (cli !== undefined && cli.endsWith('.js')) run(process.execPath, [cli, ...parameters])
  else run(process.platform === 'win32' ? 'npm.cmd' : 'npm', parameters)
}

const node = (/** @type {string[]} */ parameters) => run(process.execPath, parameters)

const run = (/** @type {string} */ command, /** @type {string[]} */ parameters) => {
  const { status, stdout, stderr, error } = spawnSync(command, parameters, {
    cwd: project,
    stdio: ['ignore', 'pipe', 'pipe'],
    encoding: 'utf8',
    // A compiler that finds fault with every line stays far below this.
    maxBuffer: 64 * 1024 * 1024,
    // Generating needs no schema engine; naming a binary that exists keeps Prisma from downloading one.
    env: { ...process.env, PRISMA_SCHEMA_ENGINE_BINARY: process.execPath, PRISMA_HIDE_UPDATE_MESSAGE: '1' },
  })
  if (status === 0) return
  process.stderr.write(`${stdout ?? ''}${stderr ?? ''}${error?.message ?? ''}\n`)
  throw new SetupFailed(`${command} ${parameters.join(' ')} failed`)
}

const say = (/** @type {string} */ what) => process.stdout.write(`${what} …\n`)

class SetupFailed extends Error {}

try {
  main()
} catch (error) {
  if (!(error instanceof SetupFailed)) throw error
  process.stderr.write(`${error.message}\n`)
  process.exitCode = 1
}
