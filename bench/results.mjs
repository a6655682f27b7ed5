/** What a run says and what it leaves: lines on standard output, and JSON, text and plot in `bench/results`. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from './root.mjs'

export const resultsFolder = join(root, 'bench/results')

const told = /** @type {string[]} */ ([])

/** Shown while it runs. */
export const say = (/** @type {string} */ line) => void process.stdout.write(`${line}\n`)

/** Shown, and kept in the result's text. */
export const tell = (/** @type {readonly string[]} */ lines) => {
  told.push(...lines)
  for (const line of lines) say(line)
}

/**
 * Writes the result under its date and, where there is a summary, over the summary that is kept in the repository.
 *
 * @param {{ mode: string, result: object, summary?: object | null, svg?: string }} what
 */
export const writeResult = ({ mode, result, summary = null, svg }) => {
  mkdirSync(resultsFolder, { recursive: true })
  const write = (/** @type {string} */ name, /** @type {object} */ content) => {
    const base = join(resultsFolder, name)
    writeFileSync(`${base}.json`, `${JSON.stringify(content, null, 1)}\n`)
    writeFileSync(`${base}.txt`, `${told.join('\n').trim()}\n`)
    if (svg !== undefined) writeFileSync(`${base}.svg`, svg)
  }
  const name = `${mode}-${new Date().toISOString().slice(0, 19).replaceAll(':', '')}`
  write(name, result)
  if (summary !== null) write('summary', summary)
  say(`\nWritten: bench/results/${name}.json, .txt${svg === undefined ? '' : ', .svg'}${summary === null ? '' : ' and summary.*'}`)
}
