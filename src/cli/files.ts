/** Files that an operator names. One that cannot be read or written is a wrong argument, and is told by its name. */
import { readFileSync } from 'node:fs'
import { ConfigError } from '../config.ts'

type Use = 'read' | 'written'

const reasons: Readonly<Record<string, Readonly<Record<Use, string>>>> = {
  ENOENT: { read: 'there is no such file', written: 'there is no such folder' },
  ENOTDIR: { read: 'there is no such file', written: 'there is no such folder' },
  EISDIR: { read: 'it is a folder', written: 'it is a folder' },
  EACCES: { read: 'you may not read it', written: 'you may not write there' },
}

/** For `catch`. @throws ConfigError for what is wrong with the file; whatever else was thrown, as it was. */
export const cannotBe = (use: Use, path: string) => (error: unknown): never => {
  const reason = reasons[String((error as NodeJS.ErrnoException).code)]
  throw reason === undefined ? error : new ConfigError([`${path} cannot be ${use}: ${reason[use]}`])
}

/** @throws ConfigError where it cannot be read. */
export const readText = (path: string): string => {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    return cannotBe('read', path)(error)
  }
}
