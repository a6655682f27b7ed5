/** `curfew/client` as a resource server has it: the package's own files for it, the packages named, and nothing else. */
import { cp, mkdir, mkdtemp, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const project = fileURLToPath(new URL('../..', import.meta.url))

export const installClient = async (packages: readonly string[]) => {
  const folder = await mkdtemp(join(tmpdir(), 'curfew-test-client-'))
  const modules = join(folder, 'node_modules')
  await mkdir(join(modules, 'curfew/dist'), { recursive: true })
  await cp(join(project, 'dist/client'), join(modules, 'curfew/dist/client'), { recursive: true })
  await cp(join(project, 'package.json'), join(modules, 'curfew/package.json'))
  for (const name of packages) {
    await mkdir(dirname(join(modules, name)), { recursive: true })
    await symlink(join(project, 'node_modules', name), join(modules, name))
  }
  return { folder, remove: () => rm(folder, { recursive: true }) }
}
