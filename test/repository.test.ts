/** What holds for the project as a whole: who may import whom, how long a file may be, and what the README says. */
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { withSections } from '../src/dev/readme-sections.ts'

const project = fileURLToPath(new URL('..', import.meta.url))
const read = (path: string): string => readFileSync(join(project, path), 'utf8')

const filesUnder = (folder: string): string[] =>
  readdirSync(join(project, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(project, join(entry.parentPath, entry.name)))
    .filter((path) => !path.includes('/generated/'))
    .sort()

const source = filesUnder('src').filter((path) => path.endsWith('.ts'))
const ours = [...source, ...filesUnder('test'), ...filesUnder('src').filter((path) => path.endsWith('.mjs'))].filter((path) => /\.(ts|mjs)$/.test(path))

/** The rooms in the order of DESIGN §3: imports point down this table, never up and never sideways. */
const rooms = [
  ['dev'],
  ['cli'],
  ['main'],
  ['service'],
  ['api', 'upkeep'],
  ['auth'],
  ['termination'],
  ['outbox'],
  ['delivery'],
  ['channels'],
  ['queue'],
  ['store'],
  // One file each; they may use each other, without a cycle.
  ['model', 'errors', 'config', 'keys', 'telemetry'],
  ['client'],
]
const ground = 'model'

const roomOf = (path: string): string => path.replace(/^src\//, '').replace(/\.ts$/, '').split('/')[0] ?? ''
const depthOf = (path: string): number => rooms.findIndex((row) => row.includes(roomOf(path)))

const importPattern = /(?:^|\n)\s*(?:import|export)\b[^'"\n]*?(?:\{[^}]*\}[^'"\n]*?)?from\s*['"](\.[^'"]+)['"]|import\(\s*['"](\.[^'"]+)['"]|(?:^|\n)import\s+['"](\.[^'"]+)['"]/g

/** The project's files that a file imports, also for their types alone. */
const importsOf = (path: string): string[] =>
  [...read(path).matchAll(importPattern)]
    .map(([, from, dynamic, bare]) => relative(project, resolve(project, dirname(path), from ?? dynamic ?? bare ?? '')))
    .filter((target) => !target.includes('/generated/'))

const imports = new Map(source.map((path) => [path, importsOf(path)]))

describe('imports', () => {
  it('are all found: every file but the entries is imported by another', () => {
    const imported = new Set([...imports.values()].flat())
    const entries = ['src/cli.ts', 'src/dev/start.ts', 'src/dev/readme.ts', 'src/dev/postgres-keeper.ts', 'src/client/index.ts']
    expect(source.filter((path) => !imported.has(path) && !entries.includes(path))).toEqual([])
  })

  it('lie in rooms that the table knows', () => {
    expect(source.filter((path) => depthOf(path) < 0)).toEqual([])
  })

  it('point down the rooms, never up', () => {
    const wrong = [...imports].flatMap(([path, targets]) =>
      targets.filter((target) => {
        if (roomOf(target) === roomOf(path)) return false
        const down = depthOf(target) - depthOf(path)
        return rooms[depthOf(path)]?.includes(ground) ? down < 0 : down <= 0
      }).map((target) => `${path} -> ${target}`),
    )
    expect(wrong).toEqual([])
  })

  it('have no cycle', () => {
    const done = new Set<string>()
    const cycles: string[] = []
    const visit = (path: string, trail: readonly string[]): void => {
      if (trail.includes(path)) cycles.push([...trail.slice(trail.indexOf(path)), path].join(' -> '))
      if (done.has(path) || trail.includes(path)) return
      for (const target of imports.get(path) ?? []) visit(target, [...trail, path])
      done.add(path)
    }
    for (const path of source) visit(path, [])
    expect(cycles).toEqual([])
  })
})

describe('files', () => {
  it('are at most 300 lines long', () => {
    expect(ours.map((path) => `${path}: ${read(path).trimEnd().split('\n').length}`).filter((line) => Number(line.split(': ')[1]) > 300)).toEqual([])
  })

  it('are not named after what belongs nowhere', () => {
    expect(ours.filter((path) => /\/(utils?|helpers?|common|types|misc)(\.ts$|\/)/.test(path))).toEqual([])
  })

  it('begin by saying what they are', () => {
    const saysSo = (text: string): boolean => text.includes('/**') && text.indexOf('/**') < (text.indexOf('\nexport ') + 1 || Infinity)
    expect(source.filter((path) => !saysSo(read(path)))).toEqual([])
  })

  it.each([
    ['unfinished work', /\b(TODO|FIXME|XXX|HACK)\b/],
    ['switched-off or lone tests', /\b(it|test|describe)\.(only|skip|todo)\(/],
    ['unchecked types', /\bas any(?=[,;)\]\s]*$)|: any(?=[,;)=>[|\s]*$)|<any>|@ts-(ignore|expect-error|nocheck)/m],
    ['paths of one machine', /(^|[\s'"`(])\/(home|Users|root|workspace)\//m],
  ])('have no %s', (_name, pattern) => {
    const self = 'test/repository.test.ts'
    expect(ours.filter((path) => path !== self && pattern.test(read(path)))).toEqual([])
  })

  it('read the environment in config.ts and in what starts a process alone', () => {
    const allowed = ['src/cli.ts', 'src/dev/start.ts']
    expect(source.filter((path) => /process\.env\b/.test(read(path)) && !allowed.includes(path))).toEqual([])
  })

  it('speak SQL in store alone', () => {
    // The two others run a server or bring the queue's own tables up to date.
    const allowed = /^src\/(store\/|dev\/(local-postgres|postgres-leftover)\.ts|queue\/backend\.ts|service\.ts)/
    expect(source.filter((path) => /\$(queryRaw|executeRaw)|from 'pg'/.test(read(path)) && !allowed.test(path))).toEqual([])
  })
})

describe('the lock', () => {
  type Locked = Partial<Record<'dependencies' | 'optionalDependencies' | 'devDependencies', Record<string, string>>>
  const { packages } = JSON.parse(read('package-lock.json')) as { packages: Record<string, Locked> }

  it('asks for what package.json asks for', () => {
    const asked = JSON.parse(read('package.json')) as Locked
    expect(packages['']).toMatchObject({ dependencies: asked.dependencies, devDependencies: asked.devDependencies })
  })

  it('is complete for every platform, or npm ci refuses it on all', () => {
    const isThere = (from: string, name: string): boolean =>
      `${from === '' ? '' : `${from}/`}node_modules/${name}` in packages || (from !== '' && isThere(from.slice(0, Math.max(0, from.lastIndexOf('/node_modules/'))), name))
    const missing = Object.entries(packages).flatMap(([path, { dependencies, optionalDependencies, devDependencies }]) =>
      Object.keys({ ...dependencies, ...optionalDependencies, ...(path === '' ? devDependencies : {}) }).filter((name) => !isThere(path, name)),
    )
    expect(missing).toEqual([])
  })
})

describe('the README', () => {
  const readme = read('README.md')

  it('has its tables as `npm run readme` makes them', async () => {
    expect(readme).toBe(await withSections(readme))
  })

  it('asks for the Node that the package asks for', () => {
    const { engines } = JSON.parse(read('package.json')) as { engines: { node: string } }
    expect(readme).toContain(`You need Node ${engines.node.replace('>=', '')} or newer`)
  })

  it('names only scripts and commands that there are', () => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> }
    const named = [...readme.matchAll(/npm (?:run )?([a-z][\w:-]*)/g)].map(([, name]) => name ?? '')
    const npmsOwn = ['ci', 'install']
    expect(named.filter((name) => !(name in scripts) && !npmsOwn.includes(name))).toEqual([])
    const commands = [...readme.matchAll(/npx curfew ([a-z-]+)/g)].map(([, name]) => name ?? '')
    expect(commands.filter((name) => !read('src/cli.ts').includes(`command('${name}')`))).toEqual([])
  })

  it('links only to files that there are', () => {
    const targets = [...readme.matchAll(/\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)/g)].map(([, target]) => target ?? '')
    expect(targets.length).toBeGreaterThan(20)
    expect(targets.filter((target) => !existsSync(join(project, target)))).toEqual([])
  })

  it('links its own headings rightly', () => {
    const headings = new Set([...readme.matchAll(/^#+ (.+)$/gm)].map(([, text = '']) => text.toLowerCase().replaceAll(/[^\w\- ]/g, '').replaceAll(' ', '-')))
    const targets = [...readme.matchAll(/\]\(#([^)]+)\)/g)].map(([, target]) => target ?? '')
    expect(targets.filter((target) => !headings.has(target))).toEqual([])
  })

  it('proves each promise by tests that name it', () => {
    const promises = [...readme.matchAll(/^\| \*\*(G\d+)\*\* .*$/gm)].map(([row, name = '']) => ({ row, name }))
    expect(promises.map(({ name }) => name)).toEqual(['G1', 'G2', 'G3', 'G4', 'G5', 'G6', 'G7', 'G8', 'G9', 'G10', 'G11', 'G12'])
    for (const { row, name } of promises) {
      const links = [...row.matchAll(/\]\((test\/[^)]+)\)/g)].map(([, target]) => target ?? '')
      expect(links.length, `${name} links no test`).toBeGreaterThan(0)
      for (const link of links) expect(new RegExp(`\\b${name}\\b`).test(read(link)), `${link} does not name ${name}`).toBe(true)
    }
  })
})
