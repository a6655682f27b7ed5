/** `npm run readme`: writes the README's tables anew. Changes nothing where they are right. */
import { readFile, writeFile } from 'node:fs/promises'
import { withSections } from './readme-sections.ts'

const file = new URL('../../README.md', import.meta.url)
const before = await readFile(file, 'utf8')
const after = await withSections(before)
if (after !== before) await writeFile(file, after)
process.stdout.write(after === before ? 'README.md is up to date.\n' : 'README.md is written.\n')
// Default metrics keep a timer of their own.
process.exit()
